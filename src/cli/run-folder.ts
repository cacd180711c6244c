// The folder that `smallmind train` fills: config.json (what was asked for), last.checkpoint, best.checkpoint (lowest
// validation loss), metrics.jsonl (an object a step) and at the end loss.svg. A checkpoint and the metrics always
// belong together: on resume, entries of steps behind the checkpoint are cut.

import { appendFileSync, existsSync, mkdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { UsageError } from './usage.ts';
import { writeError, writeFileAtomic } from './files.ts';

/** A line of metrics.jsonl. */
export interface Metrics {
  readonly step: number;
  readonly loss?: number;
  readonly learningRate?: number;
  readonly gradientNorm?: number;
  readonly validationLoss?: number;
  /** Seen since the beginning. */
  readonly tokens: number;
  readonly tokensPerSecond?: number;
}

export class RunFolder {
  readonly path: string;
  readonly lastPath: string;
  readonly bestPath: string;
  readonly metricsPath: string;
  readonly curvePath: string;
  readonly configPath: string;

  constructor(path: string) {
    this.path = path;
    this.lastPath = join(path, 'last.checkpoint');
    this.bestPath = join(path, 'best.checkpoint');
    this.metricsPath = join(path, 'metrics.jsonl');
    this.curvePath = join(path, 'loss.svg');
    this.configPath = join(path, 'config.json');
  }

  get holdsRun(): boolean {
    return existsSync(this.lastPath);
  }

  /**
   * Makes the folder ready for a new run.
   * @throws {UsageError} when it holds one already
   */
  begin(config: object): void {
    try {
      mkdirSync(this.path, { recursive: true });
    } catch (error) {
      throw writeError(this.path, error);
    }
    this.#writeConfig(config);
    writeFileAtomic(this.metricsPath, '');
  }

  /** Makes the folder ready for going on behind `step`. */
  resume(config: object, step: number): void {
    const kept = this.readMetrics().filter((entry) => entry.step <= step);
    writeFileAtomic(this.metricsPath, kept.map((entry) => `${JSON.stringify(entry)}\n`).join(''));
    this.#writeConfig(config);
  }

  requireNew(): void {
    if (this.holdsRun) {
      throw new UsageError(`${this.path} already holds a run; go on with it by --resume, or give another --out`);
    }
  }

  requireRun(): void {
    if (!this.holdsRun) {
      throw new UsageError(`${this.path} holds no checkpoint to resume from; start the run without --resume`);
    }
  }

  /** What the run was started with; empty where there is none. */
  readConfig(): Record<string, unknown> {
    return existsSync(this.configPath)
      ? (JSON.parse(readFileSync(this.configPath, 'utf8')) as Record<string, unknown>)
      : {};
  }

  /** Entries in the order of steps; a line that a crash cut short is left out. */
  readMetrics(): Metrics[] {
    if (!existsSync(this.metricsPath)) return [];
    const entries: Metrics[] = [];
    for (const line of readFileSync(this.metricsPath, 'utf8').split('\n')) {
      try {
        if (line !== '') entries.push(JSON.parse(line) as Metrics);
      } catch {
        break;
      }
    }
    return entries;
  }

  addMetrics(entry: Metrics): void {
    try {
      appendFileSync(this.metricsPath, `${JSON.stringify(entry)}\n`);
    } catch (error) {
      throw writeError(this.metricsPath, error);
    }
  }

  #writeConfig(config: object): void {
    writeFileAtomic(this.configPath, `${JSON.stringify(config, null, 2)}\n`);
  }
}

/**
 * The checkpoint that a path means: itself, or of a run's folder the best one, and the last where none was evaluated.
 */
export function findCheckpoint(path: string): string {
  if (!existsSync(path) || !statSync(path).isDirectory()) return path;
  const folder = new RunFolder(path);
  return existsSync(folder.bestPath) ? folder.bestPath : folder.lastPath;
}
