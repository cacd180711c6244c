// The error family. Every error that a user's file, argument or request can cause carries a stable `code`, a message
// that names the thing, what was expected and what to do, and plain `details`, so that it crosses a worker boundary.
// `assert` is for our own bugs only.

/**
 * What went wrong, for programs: codes stay, messages may become better. docs/troubleshooting.md has what each means
 * and what to do.
 */
export type ErrorCode =
  | 'FILE_NOT_FOUND'
  | 'FILE_UNREADABLE'
  | 'GGUF_TRUNCATED'
  | 'GGUF_INVALID'
  | 'GGUF_LIMIT'
  | 'GGUF_MISSING'
  | 'UNSUPPORTED_ARCHITECTURE'
  | 'UNSUPPORTED_DTYPE'
  | 'UNSUPPORTED_TOKENIZER'
  | 'UNSUPPORTED_MACHINE'
  | 'UNSUPPORTED_FEATURE'
  | 'SHAPE_MISMATCH'
  | 'INVALID_OPTION'
  | 'CHAT_TEMPLATE'
  | 'CONTEXT_FULL'
  | 'OUT_OF_MEMORY'
  | 'NUMERIC'
  | 'MODEL_CLOSED'
  | 'ENGINE_CRASHED'
  | 'INTERNAL';

/** Values that survive `structuredClone` and JSON. */
export type ErrorDetails = Readonly<Record<string, string | number | boolean | null>>;

/** Base of all errors that SmallMind throws on purpose; the message says what was expected, what came, what to do. */
export class SmallMindError extends Error {
  /** What went wrong. */
  readonly code: ErrorCode;
  /** What the message names, as values: `path`, `tensor`, `option`, `offset` … */
  readonly details: ErrorDetails;

  /** @internal */
  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
    this.details = details;
  }
}

/** A GGUF file that cannot be read; `details` may name offset, field, value and limit. */
export class GgufError extends SmallMindError {
  declare readonly code: 'GGUF_TRUNCATED' | 'GGUF_INVALID' | 'GGUF_LIMIT' | 'GGUF_MISSING';
}

/** A well-formed input that this version cannot run; the message names the nearest that works. */
export class UnsupportedError extends SmallMindError {}

/** A tensor whose shape is not the one that its use requires. */
export class ShapeError extends SmallMindError {
  /** @internal */
  constructor(message: string, details: ErrorDetails = {}) {
    super('SHAPE_MISMATCH', message, details);
  }
}

/** An option outside its range, or of the wrong type. Raised before any work starts. */
export class OptionError extends SmallMindError {
  /** @internal */
  constructor(message: string, details: ErrorDetails = {}) {
    super('INVALID_OPTION', message, details);
  }
}

export const closedError = (): SmallMindError =>
  new SmallMindError('MODEL_CLOSED', 'the model is closed; load it again');

/** Checks an invariant of our own code. A failure is a bug in SmallMind, never the user's mistake. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new SmallMindError('INTERNAL', `internal error (please report it): ${message}`);
}

/** What crosses a worker boundary in place of an error object. */
export interface ErrorRecord {
  readonly name: string;
  readonly code: ErrorCode;
  readonly message: string;
  readonly details: ErrorDetails;
  readonly stack?: string;
}

const ERROR_CLASSES: Readonly<Record<string, typeof SmallMindError>> = {
  GgufError: GgufError as typeof SmallMindError,
  UnsupportedError,
};

export function toErrorRecord(error: unknown): ErrorRecord {
  if (error instanceof SmallMindError) {
    const { name, code, message, details, stack } = error;
    return { name, code, message, details, stack };
  }
  const { name = 'Error', message = String(error), stack } = error instanceof Error ? error : {};
  return { name, code: 'INTERNAL', message: `${name}: ${message}`, details: {}, stack };
}

export function fromErrorRecord(record: ErrorRecord): SmallMindError {
  const { name, code, message, details, stack } = record;
  let error: SmallMindError;
  if (name === 'ShapeError') error = new ShapeError(message, details);
  else if (name === 'OptionError') error = new OptionError(message, details);
  else error = new (ERROR_CLASSES[name] ?? SmallMindError)(code, message, details);
  if (stack !== undefined) error.stack = stack;
  return error;
}
