// The engine: token ids in, token ids out. It batches the tokens of all running sequences into steps of one executor,
// prompts in chunks, and lets each sequence's sampler choose what comes next. It knows no text, no files, no threads.
// A step allocates nothing on the JavaScript heap but the keys by which the blocks of prompts are found: sequences own
// typed arrays, and the views are made once.

import { OptionError, SmallMindError } from '../base/errors.ts';
import type { Executor } from '../backend/executor.ts';
import { KV_BLOCK_SIZE } from '../graph/step.ts';
import type { OutputKind, ProgramLimits } from '../graph/step.ts';
import { KvCache } from './kv-cache.ts';
import { Sequence } from './sequence.ts';
import type { EngineRequest, FinishReason } from './sequence.ts';

/** What the engine must know of the model that its executor runs. */
export interface EngineModel {
  readonly nVocab: number;
  /** Tokens attend to what is before them. Else to all of their text, which is then evaluated in one step. */
  readonly isCausal: boolean;
  /** What the executor's programs give, in their order. */
  readonly outputs: readonly ProgramOutput[];
}

/** f32[nRowsMax, columns] */
export interface ProgramOutput {
  readonly kind: OutputKind;
  readonly nRowsMax: number;
  readonly columns: number;
}

/** A program with its output: one view a row, made once. */
interface EngineProgram {
  readonly index: number;
  readonly rows: readonly Float32Array[];
}

export class Engine {
  readonly limits: ProgramLimits;
  readonly nVocab: number;
  readonly #isCausal: boolean;
  readonly cache: KvCache;
  readonly #executor: Executor;
  readonly #inputs: Readonly<
    Record<'tokens' | 'positions' | 'lastSeen' | 'sequences' | 'kvSlots' | 'blockTables' | 'outputRows', Int32Array>
  >;
  readonly #nTokens: Int32Array;
  readonly #nOutputs: Int32Array;
  readonly #programs: ReadonlyMap<OutputKind, EngineProgram>;
  readonly #nBlockPerSeq: number;
  /** By slot; the running sequences. */
  readonly #running: (Sequence | undefined)[];
  readonly #waiting: Sequence[] = [];
  /** Slot and position of each wanted row of the present step. */
  readonly #outputSlots: Int32Array;
  readonly #outputPositions: Int32Array;
  /** The slot that is served first in the next step, so that none starves. */
  #firstSlot = 0;

  constructor(executor: Executor, limits: ProgramLimits, { nVocab, isCausal, outputs }: EngineModel) {
    this.limits = limits;
    this.nVocab = nVocab;
    this.#isCausal = isCausal;
    this.#executor = executor;
    this.cache = new KvCache(limits.nKvBlock, KV_BLOCK_SIZE);
    this.#nBlockPerSeq = Math.ceil(limits.nCtx / KV_BLOCK_SIZE);
    this.#inputs = {
      tokens: executor.input('tokens'),
      positions: executor.input('positions'),
      lastSeen: executor.input('lastSeen'),
      sequences: executor.input('sequences'),
      kvSlots: executor.input('kvSlots'),
      blockTables: executor.input('blockTables'),
      outputRows: executor.input('outputRows'),
    };
    const programs = outputs.map(({ kind, nRowsMax, columns }, index): [OutputKind, EngineProgram] => {
      const all = executor.output(0, index);
      const rows = Array.from({ length: nRowsMax }, (_, row) => all.subarray(row * columns, (row + 1) * columns));
      return [kind, { index, rows }];
    });
    this.#programs = new Map(programs);
    this.#nTokens = executor.rowCount('nTokens');
    this.#nOutputs = executor.rowCount('nOutputs');
    this.#running = Array.from({ length: limits.nSeqMax });
    const nRowsMax = Math.max(...outputs.map((output) => output.nRowsMax));
    this.#outputSlots = new Int32Array(nRowsMax);
    this.#outputPositions = new Int32Array(nRowsMax);
  }

  get isIdle(): boolean {
    return this.#waiting.length === 0 && this.#running.every((s) => s === undefined);
  }

  /**
   * Queues a sequence; `step` runs it.
   * @throws {SmallMindError} CONTEXT_FULL when the prompt leaves no room, {OptionError} for no or unknown
   *   tokens, or more to keep than half of the context
   */
  start(request: EngineRequest): Sequence {
    const { tokens, nGenerateMax, nKeep = 0 } = request;
    const { nCtx } = this.limits;
    if (tokens.length === 0) throw new OptionError('the prompt is empty: it has no tokens');
    if (tokens.length + Math.min(1, nGenerateMax) > nCtx) {
      throw new SmallMindError(
        'CONTEXT_FULL',
        `the prompt has ${tokens.length} tokens, the context holds ${nCtx}; shorten the prompt or load with a larger context`,
        { promptTokens: tokens.length, nCtx },
      );
    }
    requireKeep(nKeep, nCtx);
    requireIds(tokens, this.nVocab);
    const sequence = new Sequence(request, nCtx, KV_BLOCK_SIZE, this.#isCausal);
    if (request.sampler) for (let i = 0; i < tokens.length; i++) request.sampler.accept(tokens[i]!);
    this.#waiting.push(sequence);
    return sequence;
  }

  /** Ends a sequence before its next step. Harmless when it has ended already. */
  abort(sequence: Sequence): void {
    sequence.isAborted = true;
  }

  /** Evaluates one batch. @returns whether anything was left to do */
  step(): boolean {
    this.#endEarly();
    if (this.#waiting.length > 0) this.#admit();
    const program = this.#fillBatch();
    if (program === undefined) return false;
    try {
      this.#executor.run(program.index);
    } catch (error) {
      this.failAll(error);
      return true;
    }
    for (let slot = 0; slot < this.#running.length; slot++) this.#running[slot]?.publish(this.cache);
    this.#readOutputs(program.rows);
    return true;
  }

  /** Ends everything that runs or waits with `error`. */
  failAll(error: unknown): void {
    for (const sequence of this.#running) if (sequence) this.#fail(sequence, error);
    for (const sequence of this.#waiting.splice(0)) sequence.request.onError(error);
  }

  /** Ends what was aborted or has had its time, whether it runs or waits. */
  #endEarly(): void {
    for (let slot = 0; slot < this.#running.length; slot++) {
      const sequence = this.#running[slot];
      const reason = sequence?.earlyEnd;
      if (reason !== undefined) this.#finish(sequence!, reason);
    }
    for (let i = this.#waiting.length - 1; i >= 0; i--) {
      const sequence = this.#waiting[i]!;
      const reason = sequence.earlyEnd;
      if (reason === undefined) continue;
      this.#waiting.splice(i, 1);
      sequence.request.onFinish(reason, sequence);
    }
  }

  /** Gives free slots to waiting sequences, first come first served. */
  #admit(): void {
    for (let slot = 0; slot < this.#running.length && this.#waiting.length > 0; slot++) {
      if (this.#running[slot]) continue;
      const sequence = this.#waiting.shift()!;
      sequence.slot = slot;
      this.#running[slot] = sequence;
    }
  }

  /** Whether the sequence has begun to read, or begins now: not while another one reads what it can take over. */
  #begin(sequence: Sequence): boolean {
    if (sequence.hasBegun) return true;
    for (const other of this.#running) if (other?.hasBegun && sequence.canAwait(other, KV_BLOCK_SIZE)) return false;
    sequence.begin(this.cache);
    const { blockTables } = this.#inputs;
    const start = sequence.slot * this.#nBlockPerSeq;
    for (let i = 0; i < sequence.nBlocks; i++) blockTables[start + i] = sequence.blocks[i]!;
    return true;
  }

  /**
   * Fills the inputs with the next tokens of the running sequences that want the same as the first in turn.
   * @returns what computes it; undefined when there is nothing to do
   */
  #fillBatch(): EngineProgram | undefined {
    const { nTokensMax, nSeqMax } = this.limits;
    let output: OutputKind | undefined;
    let program: EngineProgram | undefined;
    let nTokens = 0;
    let nOutputs = 0;
    for (let i = 0; i < nSeqMax && nTokens < nTokensMax; i++) {
      const sequence = this.#running[(this.#firstSlot + i) % nSeqMax];
      if (!sequence) continue;
      const { output: wanted = 'logits', wantsRows } = sequence.request;
      if (output !== undefined && (wanted !== output || !this.#fits(sequence, nTokens))) continue;
      if (!this.#begin(sequence)) continue;
      output = wanted;
      program = this.#programs.get(output)!;
      const nOutputMax = program.rows.length;
      const wantsAll = wantsRows === 'all';
      for (; sequence.nPast < sequence.nTokens && nTokens < nTokensMax; nTokens++) {
        const isLast = sequence.nPast === sequence.nTokens - 1;
        if (wantsAll || isLast) {
          if (nOutputs === nOutputMax) break;
          this.#inputs.outputRows[nOutputs] = nTokens;
          this.#outputSlots[nOutputs] = sequence.slot;
          this.#outputPositions[nOutputs] = sequence.nPast;
          nOutputs++;
        }
        this.#place(sequence, nTokens);
      }
    }
    this.#firstSlot = (this.#firstSlot + 1) % nSeqMax;
    this.#nTokens[0] = nTokens;
    this.#nOutputs[0] = nOutputs;
    return nTokens === 0 ? undefined : program;
  }

  /** Whether a text that is evaluated in one step fits behind `nTokens` others. */
  #fits(sequence: Sequence, nTokens: number): boolean {
    return this.#isCausal || nTokens + sequence.nTokens <= this.limits.nTokensMax;
  }

  /** Puts the sequence's next token into row `row` of the batch. */
  #place(sequence: Sequence, row: number): void {
    const { tokens, positions, lastSeen, sequences, kvSlots, blockTables } = this.#inputs;
    const position = sequence.nPast;
    const index = Math.floor(position / KV_BLOCK_SIZE);
    if (index === sequence.nBlocks) {
      const block = this.cache.allocate();
      sequence.blocks[sequence.nBlocks++] = block;
      blockTables[sequence.slot * this.#nBlockPerSeq + index] = block;
    }
    tokens[row] = sequence.tokens[position]!;
    positions[row] = position;
    lastSeen[row] = this.#isCausal ? position : sequence.nTokens - 1;
    sequences[row] = sequence.slot;
    kvSlots[row] = sequence.blocks[index]! * KV_BLOCK_SIZE + (position % KV_BLOCK_SIZE);
    sequence.nPast = position + 1;
  }

  #readOutputs(rows: readonly Float32Array[]): void {
    const nOutputs = this.#nOutputs[0]!;
    for (let row = 0; row < nOutputs; row++) {
      const sequence = this.#running[this.#outputSlots[row]!];
      if (sequence === undefined) continue;
      try {
        this.#readOutput(sequence, this.#outputPositions[row]!, rows[row]!);
      } catch (error) {
        this.#fail(sequence, error);
      }
    }
  }

  #readOutput(sequence: Sequence, position: number, row: Float32Array): void {
    const { request } = sequence;
    if (request.onRow !== undefined && position < sequence.nPrompt) request.onRow(position, row);
    if (position === sequence.nTokens - 1) this.#advance(sequence, row);
  }

  /** The sequence is evaluated to its end: chooses the next token, or ends it. */
  #advance(sequence: Sequence, logits: Float32Array): void {
    const { sampler, nGenerateMax, stopTokens, nKeep, onToken } = sequence.request;
    if (nGenerateMax === 0 || sampler === undefined) return this.#finish(sequence, 'length');
    const token = sampler.sample(logits);
    if (sequence.firstTokenAtMs === 0) sequence.firstTokenAtMs = performance.now();
    if (stopTokens !== undefined && stopTokens.has(token)) {
      sequence.stopToken = token;
      return this.#finish(sequence, 'stop');
    }
    sampler.accept(token);
    sequence.tokens[sequence.nTokens++] = token;
    sequence.nGenerated++;
    const reason = onToken === undefined ? undefined : onToken(token, sequence, logits);
    if (reason !== undefined) return this.#finish(sequence, reason);
    if (sequence.nGenerated >= nGenerateMax) return this.#finish(sequence, 'length');
    if (sequence.nTokens < this.limits.nCtx) return;
    if (nKeep === undefined) this.#finish(sequence, 'context');
    else sequence.shift(this.cache, nKeep);
  }

  #finish(sequence: Sequence, reason: FinishReason): void {
    this.#running[sequence.slot] = undefined;
    sequence.release(this.cache);
    sequence.request.onFinish(reason, sequence);
  }

  /** What a failed step wrote is unknown: nothing of the sequence may be found again. */
  #fail(sequence: Sequence, error: unknown): void {
    this.#running[sequence.slot] = undefined;
    sequence.nPast = 0;
    sequence.release(this.cache);
    this.cache.forgetAll();
    sequence.request.onError(error);
  }
}

/**
 * @param what  whose tokens they are, for the error
 * @throws {OptionError} for a token that the vocabulary does not have
 */
export function requireIds(tokens: ArrayLike<number>, nVocab: number, what = ''): void {
  for (let i = 0; i < tokens.length; i++) {
    const token = tokens[i]!;
    if (Number.isInteger(token) && token >= 0 && token < nVocab) continue;
    throw new OptionError(`${what}token ${i} expected an id of 0..${nVocab - 1}, got ${token}`);
  }
}

/** A shift must drop something, and leave the newest token; half of the context, so that it is not needed often. */
function requireKeep(nKeep: number, nCtx: number): void {
  const max = Math.max(0, Math.min(nCtx >> 1, nCtx - 2));
  if (nKeep <= max) return;
  throw new OptionError(`"contextKeep" expected at most half of the context, ${max} tokens, got ${nKeep}`, {
    option: 'contextKeep',
  });
}
