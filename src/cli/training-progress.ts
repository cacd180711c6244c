// How `smallmind train` shows where it is: on a terminal one line that is rewritten, with the speed and the time that
// is left; and wherever it runs, a line for each evaluation.

import type { EvaluatingEvent, StepEvent } from '../training.ts';
import { formatCount, widthOf } from './text.ts';

const REDRAW_MS = 100;
/** Of the mean speed that is shown. */
const WINDOW_MS = 10_000;

export interface ProgressPlan {
  readonly nSteps: number;
  /** Steps taken before this process. */
  readonly firstStep: number;
  readonly nTokensAStep: number;
}

/** A stream such as process.stderr. */
export interface Terminal {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

export class TrainingProgress {
  readonly #plan: ProgressPlan;
  /** Where lines go that stay. */
  readonly #lines: Terminal;
  /** Where a line is rewritten, if it is a terminal. */
  readonly #live: Terminal;
  readonly #startMs = performance.now();
  #step: number;
  #drawnMs = 0;
  #isDrawn = false;
  #validationLoss: number | undefined;
  /** Of the steps since the last line. */
  #losses: number[] = [];
  /** When each of the latest steps ended. */
  #ends: { readonly step: number; readonly ms: number }[];

  constructor(plan: ProgressPlan, lines: Terminal, live: Terminal) {
    this.#plan = plan;
    this.#lines = lines;
    this.#live = live;
    this.#step = plan.firstStep;
    this.#ends = [{ step: plan.firstStep, ms: this.#startMs }];
  }

  /** Of the last ten seconds, or of the last step if it took longer; undefined before the first. */
  get tokensPerSecond(): number | undefined {
    const [first, last] = [this.#ends[0]!, this.#ends.at(-1)!];
    if (last.step === first.step || last.ms === first.ms) return undefined;
    return ((last.step - first.step) * this.#plan.nTokensAStep * 1000) / (last.ms - first.ms);
  }

  get seconds(): number {
    return (performance.now() - this.#startMs) / 1000;
  }

  evaluating({ step, nBatchesDone, nBatches }: EvaluatingEvent): void {
    this.#draw(`${this.#position(step)} · evaluating ${nBatchesDone}/${nBatches}`);
  }

  step({ step, loss, validationLoss }: StepEvent): void {
    this.#step = step;
    const ms = performance.now();
    if (loss !== undefined) {
      this.#losses.push(loss);
      this.#ends.push({ step, ms });
      while (this.#ends.length > 2 && ms - this.#ends[0]!.ms > WINDOW_MS) this.#ends.shift();
    }
    if (validationLoss !== undefined) {
      this.#validationLoss = validationLoss;
      this.say(this.#describe(this.#meanLoss(), true));
      this.#losses = [];
    }
    this.#draw(this.#describe(loss, false));
  }

  /** Writes a line for good. */
  say(line: string): void {
    this.erase();
    this.#lines.write(`${line}\n`);
  }

  /** Takes the line away that is rewritten. */
  erase(): void {
    if (this.#isDrawn) this.#live.write('\r\u001b[K');
    this.#isDrawn = false;
    this.#drawnMs = 0;
  }

  #draw(line: string): void {
    const ms = performance.now();
    if (!this.#live.isTTY || ms - this.#drawnMs < REDRAW_MS) return;
    this.#live.write(`\r${line.slice(0, widthOf(this.#live) - 1)}\u001b[K`);
    this.#isDrawn = true;
    this.#drawnMs = ms;
  }

  #describe(loss: number | undefined, isEvaluation: boolean): string {
    const parts = [this.#position(this.#step)];
    if (loss !== undefined) parts.push(`loss ${loss.toFixed(4)}`);
    if (this.#validationLoss !== undefined) parts.push(`validation ${this.#validationLoss.toFixed(4)}`);
    const speed = this.tokensPerSecond;
    if (speed !== undefined) parts.push(`${formatCount(Math.round(speed))} tokens/s`);
    const left = this.#secondsLeft();
    if (left !== undefined && !isEvaluation) parts.push(`${formatDuration(left)} left`);
    return parts.join(' · ');
  }

  #position(step: number): string {
    const { nSteps } = this.#plan;
    return `step ${String(step).padStart(String(nSteps).length)}/${nSteps}`;
  }

  #meanLoss(): number | undefined {
    const n = this.#losses.length;
    return n === 0 ? undefined : this.#losses.reduce((sum, loss) => sum + loss, 0) / n;
  }

  /** By the speed of this process so far, evaluations included. */
  #secondsLeft(): number | undefined {
    const { nSteps, firstStep } = this.#plan;
    const nDone = this.#step - firstStep;
    return nDone === 0 ? undefined : (this.seconds / nDone) * (nSteps - this.#step);
  }
}

/** `45 s`, `3 min 20 s`, `2 h 5 min`. */
export function formatDuration(seconds: number): string {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}
