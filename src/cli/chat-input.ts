// What a user writes, message by message: typed at a terminal, with a line editor and its history, or piped in. A line
// is a message; one that ends with a backslash goes on, and so do lines between two of """, and those of one paste.
// What is typed while an answer is written is kept, and shown when its turn comes.

import { createInterface } from 'node:readline';
import type { Interface } from 'node:readline';
import { Writable } from 'node:stream';

const PROMPT = '> ';
const PROMPT_AGAIN = '. ';
const FENCE = '"""';
/** Lines that may wait; of a pipe no more is read until they are gone. */
const N_WAITING_MAX = 1000;
const N_HISTORY_MAX = 1000;

/** Terminals mark what is pasted, if asked to. */
const PASTE_MARKS_ON = '\u001b[?2004h';
const PASTE_MARKS_OFF = '\u001b[?2004l';

interface Line {
  readonly text: string;
  /** Whether it was typed out of sight. */
  readonly isHidden: boolean;
  readonly isPasted: boolean;
}

export class ChatInput {
  readonly #screen: Screen;
  readonly #isTerminal: boolean;
  readonly #marksPastes: boolean;
  readonly #readline: Interface;
  readonly #waiting: Line[] = [];
  /** Lines of the message that goes on. */
  #lines: string[] = [];
  #isFenced = false;
  #isPasting = false;
  #isDiscarding = false;
  /** Whether Ctrl-C was the last thing at an empty prompt. */
  #isLeaving = false;
  #isClosed = false;
  #wake: () => void = () => {};

  /** @param onStop  called for Ctrl-C while no message is awaited */
  constructor(
    input: NodeJS.ReadableStream,
    output: NodeJS.WritableStream & { readonly columns?: number },
    isTerminal: boolean,
    onStop: () => void,
  ) {
    this.#screen = new Screen(output);
    this.#isTerminal = isTerminal;
    this.#marksPastes = isTerminal && process.env['TERM'] !== 'dumb';
    this.#readline = createInterface({
      input,
      output: isTerminal ? this.#screen : undefined,
      terminal: isTerminal,
      historySize: N_HISTORY_MAX,
      removeHistoryDuplicates: true,
      crlfDelay: Infinity,
    });
    this.#readline.on('line', (text) => this.#add(text));
    this.#readline.on('close', () => {
      this.#isClosed = true;
      if (this.#marksPastes) this.#screen.show(PASTE_MARKS_OFF);
      if (isTerminal && !this.#screen.isHidden) this.#screen.show('\n');
      this.#wake();
    });
    this.#readline.on('SIGINT', () => (this.#screen.isHidden ? onStop() : this.#interrupt()));
    if (!isTerminal) return;
    input.on('keypress', (_, { name }: { name?: string }) => {
      if (name === 'paste-start') this.#isPasting = true;
      if (name === 'paste-end') this.#isPasting = false;
    });
    if (this.#marksPastes) output.write(PASTE_MARKS_ON);
  }

  /** The next message that is not empty; undefined at the end. */
  async next(): Promise<string | undefined> {
    for (;;) {
      const line = await this.#nextLine();
      const message = line ? this.#continue(line) : this.#take();
      if (message?.trim()) {
        this.#screen.isHidden = true;
        return message;
      }
      if (!line) return undefined;
    }
  }

  /** Gives the terminal back. May be called twice. */
  close(): void {
    this.#readline.close();
  }

  async #nextLine(): Promise<Line | undefined> {
    if (this.#waiting.length === 0 && !this.#isClosed) {
      if (this.#isTerminal) this.#prompt();
      this.#readline.resume();
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    const line = this.#waiting.shift();
    if (line?.isHidden) this.#screen.show(`${this.#promptText()}${line.text}\n`);
    return line;
  }

  #promptText(): string {
    return this.#isFenced || this.#lines.length > 0 ? PROMPT_AGAIN : PROMPT;
  }

  #prompt(): void {
    this.#screen.isHidden = false;
    this.#readline.setPrompt(this.#promptText());
    this.#readline.prompt(true);
  }

  #add(text: string): void {
    this.#isLeaving = false;
    if (this.#isDiscarding) return;
    const isHidden = this.#isTerminal && this.#screen.isHidden;
    this.#waiting.push({ text, isHidden, isPasted: this.#isPasting });
    if (!this.#isTerminal && this.#waiting.length >= N_WAITING_MAX) this.#readline.pause();
    this.#wake();
  }

  /** The whole message, if the line ends it. */
  #continue({ text, isPasted }: Line): string | undefined {
    const isFence = text.trim() === FENCE;
    if (isFence && (this.#isFenced || this.#lines.length === 0)) {
      this.#isFenced = !this.#isFenced;
      return this.#isFenced ? undefined : this.#take();
    }
    const goesOn = !this.#isFenced && text.endsWith('\\');
    this.#lines.push(goesOn ? text.slice(0, -1) : text);
    return goesOn || this.#isFenced || isPasted ? undefined : this.#take();
  }

  #take(): string {
    const message = this.#lines.join('\n');
    this.#lines = [];
    this.#isFenced = false;
    return message;
  }

  /** Ctrl-C where a message is awaited: what is written of it goes; where there is nothing, the second one leaves. */
  #interrupt(): void {
    const isEmpty = this.#readline.line === '' && this.#lines.length === 0 && !this.#isFenced;
    if (isEmpty && this.#isLeaving) return this.close();
    this.#take();
    this.#isDiscarding = true;
    this.#readline.write(null as never, { name: 'return' });
    this.#isDiscarding = false;
    if (isEmpty) this.#screen.show('Ctrl-C once more leaves, and so does Ctrl-D.\n');
    this.#isLeaving = isEmpty;
    this.#prompt();
  }
}

/** Where the line editor draws: nowhere while it is hidden. */
class Screen extends Writable {
  isHidden = false;
  readonly #output: NodeJS.WritableStream & { readonly columns?: number };

  constructor(output: NodeJS.WritableStream & { readonly columns?: number }) {
    super({ decodeStrings: false });
    this.#output = output;
    output.on('resize', () => this.emit('resize'));
  }

  get columns(): number | undefined {
    return this.#output.columns;
  }

  show(text: string): void {
    this.#output.write(text);
  }

  override _write(text: string, _: BufferEncoding, done: () => void): void {
    if (!this.isHidden) this.#output.write(text);
    done();
  }
}
