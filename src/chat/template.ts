// Chat templates: the Jinja text in a model file that turns messages into a prompt. A template comes with a file and is
// not trusted: what it may compute is counted, so that one that loops or explodes ends with an error and not a hang.
// The language is @huggingface/jinja's, which is loaded when a template is first compiled.

import { SmallMindError } from '../base/errors.ts';
import { strftime } from './strftime.ts';

/** Expressions and statements evaluated, elements made or gone through, and 64 characters each. About a second. */
const WORK_MAX = 1_000_000;
/** Characters of a string; of a list or object, elements at all depths. */
const SIZE_MAX = 4 << 20;
/** Real templates stay below 20,000 characters. */
const SOURCE_LENGTH_MAX = 1 << 18;

/** What is used of the library: its own declarations name modules in a way that Node does not. */
interface Jinja {
  tokenize(source: string, options: { lstrip_blocks: boolean; trim_blocks: boolean }): unknown;
  parse(tokens: unknown): unknown;
  readonly Environment: new () => Environment;
  readonly Interpreter: new (environment: Environment) => Interpreter;
}

interface Environment {
  set(name: string, value: unknown): void;
}

/** A part of the parsed template; which fields there are, its type says. */
interface Statement {
  readonly type: string;
  readonly iterable?: Statement;
  readonly lhs?: Statement;
  readonly operand?: Statement;
  readonly left?: Statement;
  readonly right?: Statement;
  readonly callee?: Statement;
  readonly object?: Statement;
}

interface Interpreter {
  /** What is left out, as in `list[:1]`, is evaluated as undefined. */
  evaluate(statement: Statement | undefined, environment: Environment): { readonly value: unknown };
  run(program: unknown): { readonly value: unknown };
}

/** A compiled template. */
export interface ChatTemplate {
  /**
   * The text for these variables, plain values as JSON has them.
   * @param now  what `strftime_now` formats
   * @throws {SmallMindError} CHAT_TEMPLATE with the template's own words, or for one that computes too much
   */
  render(variables: Readonly<Record<string, unknown>>, now?: Date): string;
}

/** @throws {SmallMindError} CHAT_TEMPLATE for a text that is no template, with the place where it fails */
export async function compileTemplate(source: string): Promise<ChatTemplate> {
  const jinja = (await import('@huggingface/jinja')) as unknown as Jinja;
  if (source.length > SOURCE_LENGTH_MAX) {
    throw failure(`is ${source.length} characters long, more than ${SOURCE_LENGTH_MAX}`);
  }
  const program = attempt('is not valid', () =>
    jinja.parse(jinja.tokenize(source, { lstrip_blocks: true, trim_blocks: true })),
  );

  class BudgetedInterpreter extends jinja.Interpreter {
    #work = 0;
    readonly #sizes = new WeakMap<object, number>();
    /** Parts of the template whose value is gone through, and not only named. */
    readonly #read = new WeakSet<object>();

    override evaluate(statement: Statement | undefined, environment: Environment): { readonly value: unknown } {
      this.#spend(1);
      for (const part of statement ? readBy(statement) : []) this.#read.add(part);
      const result = super.evaluate(statement, environment);
      this.#account(result.value, statement !== undefined && this.#read.has(statement));
      return result;
    }

    #account(value: unknown, isRead: boolean): void {
      if (typeof value === 'string') this.#spend(value.length / 64);
      if (!isCollection(value)) return this.#bound(typeof value === 'string' ? value.length : 0);
      const isNew = !this.#sizes.has(value);
      const size = this.#sizeOf(value);
      this.#bound(size);
      if (isNew) this.#spend(size);
      if (isRead) this.#spend(lengthOf(value));
    }

    #spend(work: number): void {
      this.#work += work;
      if (this.#work > WORK_MAX) throw failure('computes without end');
    }

    #bound(size: number): void {
      if (size > SIZE_MAX) throw failure(`makes a value of more than ${SIZE_MAX} characters or elements`);
    }

    /** Lists may hold the same list again and again: each counts as often as it is written out. */
    #sizeOf(value: unknown): number {
      if (!isCollection(value)) return typeof value === 'string' ? value.length / 64 : 0;
      const known = this.#sizes.get(value);
      if (known !== undefined) return known;
      let size = 1;
      for (const element of value.values()) size += 1 + this.#sizeOf(element.value);
      this.#sizes.set(value, size);
      return size;
    }
  }

  return {
    render(variables, now = new Date()) {
      const environment = new jinja.Environment();
      return attempt('fails', () => {
        setGlobals(environment, now);
        for (const [name, value] of Object.entries(variables)) environment.set(name, value);
        return String(new BudgetedInterpreter(environment).run(program).value);
      });
    },
  };
}

type Collection = readonly { readonly value: unknown }[] | ReadonlyMap<unknown, { readonly value: unknown }>;

const isCollection = (value: unknown): value is Collection => Array.isArray(value) || value instanceof Map;

const lengthOf = (value: Collection): number => ('size' in value ? value.size : value.length);

/** The parts whose values a statement goes through: of loops, filters and operators what they take, `x` of x.f(). */
function readBy({ iterable, lhs, operand, left, right, callee }: Statement): Statement[] {
  return [iterable, lhs, operand, left, right, callee?.object].filter((part) => part !== undefined);
}

/** What every template may use, in Python's and Jinja's spelling. */
function setGlobals(environment: Environment, now: Date): void {
  for (const [name, value] of Object.entries({ true: true, True: true, false: false, False: false })) {
    environment.set(name, value);
  }
  environment.set('none', null);
  environment.set('None', null);
  environment.set('range', range);
  environment.set('strftime_now', (format: unknown) => strftime(String(format), now));
  environment.set('raise_exception', (message: unknown) => {
    throw failure(`says: ${String(message)}`);
  });
}

/** Python's `range`, of bounded length. */
function range(first: number, end?: number, step = 1): number[] {
  const [from, to] = end === undefined ? [0, first] : [first, end];
  const length = Math.max(0, Math.ceil((to - from) / step));
  if (!(length <= SIZE_MAX / 64)) throw failure(`counts from ${from} to ${to} in steps of ${step}`);
  return Array.from({ length }, (_, i) => from + i * step);
}

function failure(what: string): SmallMindError {
  return new SmallMindError('CHAT_TEMPLATE', `the model's chat template ${what}; give one of your own with "template"`);
}

/** The library's errors are plain ones, and a text that nests too deeply overflows the stack. */
function attempt<T>(what: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (error instanceof SmallMindError) throw error;
    throw failure(`${what}: ${error instanceof Error ? error.message : String(error)}`);
  }
}
