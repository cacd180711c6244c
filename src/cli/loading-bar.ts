// The progress bar while a model is loaded: on a terminal only, and only when loading takes long enough to be noticed.

import { basename } from 'node:path';
import type { SingleBar } from 'cli-progress';
import type { LoadProgressEvent } from '../index.ts';
import { formatBytes } from './text.ts';

const DELAY_MS = 200;
const NAME_LENGTH_MAX = 24;

export class LoadingBar {
  readonly #name: string;
  readonly #startMs = performance.now();
  #bar: Promise<SingleBar> | undefined;
  #latest: LoadProgressEvent = { loadedBytes: 0, totalBytes: 0 };

  /** @param path  or a URL */
  constructor(path: string) {
    const name = basename(/^https?:/i.test(path) ? new URL(path).pathname : path);
    this.#name = name.length > NAME_LENGTH_MAX ? `${name.slice(0, NAME_LENGTH_MAX - 1)}…` : name;
  }

  update(progress: LoadProgressEvent): void {
    this.#latest = progress;
    if (!process.stderr.isTTY || performance.now() - this.#startMs < DELAY_MS) return;
    this.#bar ??= this.#start();
    void this.#bar.then((bar) => bar.update(this.#latest.loadedBytes, this.#sizes()));
  }

  /** Removes the bar and gives the cursor back. */
  async stop(): Promise<void> {
    (await this.#bar)?.stop();
  }

  async #start(): Promise<SingleBar> {
    const { default: progress } = await import('cli-progress');
    const format = `Loading ${this.#name} [{bar}] {percentage} % of {size}`;
    const options = { format, stream: process.stderr, barsize: 24, hideCursor: true, clearOnComplete: true };
    const bar = new progress.SingleBar({ ...options, stopOnComplete: false }, progress.Presets.shades_classic);
    bar.start(this.#latest.totalBytes, this.#latest.loadedBytes, this.#sizes());
    return bar;
  }

  #sizes() {
    return { size: formatBytes(this.#latest.totalBytes) };
  }
}
