// Flags as they are written on the command line, and the mistakes in them. The library checks ranges; here its names
// become flags again, so that a message speaks of what was typed.

import { InvalidArgumentError, Option } from 'commander';
import type { Command } from 'commander';
import type { SmallMindError } from '../index.ts';

/** A mistake on the command line. */
export class UsageError extends Error {}

/** A flag that stands for an option of the library. */
export interface Flag {
  /** As commander takes it: `-t, --threads <N>`. */
  readonly flags: string;
  /** The library's name of it. */
  readonly name: string;
  readonly help: string;
  /** `previous` is what an earlier occurrence of the flag has given. */
  readonly parse: (text: string, previous?: unknown) => unknown;
  /** What a flag without a value means. */
  readonly preset?: unknown;
  /** What the command line takes where the flag is missing, if that is not the library's default. */
  readonly fallback?: unknown;
}

/**
 * The number that `text` is in decimal notation. What is no number is passed on as it was written: the library refuses
 * it, with the range that the option has.
 */
export function parseNumber(text: string): number | string {
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : text;
}

/** For a flag that may be given several times: what was given, in order. */
export function collectTexts(text: string, previous: unknown = []): readonly string[] {
  return [...(previous as readonly string[]), text];
}

/** For `ID=VALUE`, which may be given several times: an object of all. `-Infinity` is a value, too. */
export function collectNumbers(text: string, previous: unknown = {}): Record<string, unknown> {
  const [id = '', value = ''] = text.split('=', 2);
  return { ...(previous as object), [id]: value === '-Infinity' ? -Infinity : parseNumber(value) };
}

/** For `KEY=JSON`, which may be given several times: an object of all. What is not JSON is text. */
export function collectJson(text: string, previous: unknown = {}): Record<string, unknown> {
  const [, key, value] = /^([^=]+)=([^]*)$/.exec(text) ?? [];
  if (key === undefined || value === undefined) throw new InvalidArgumentError('Expected KEY=JSON.');
  const parse = (): unknown => {
    try {
      return JSON.parse(value);
    } catch {
      return value;
    }
  };
  return { ...(previous as object), [key]: parse() };
}

export function addFlags(command: Command, heading: string, flags: readonly Flag[]): void {
  for (const { flags: spelling, help, parse, preset, fallback } of flags) {
    const option = new Option(spelling, help).argParser(parse).default(fallback).helpGroup(heading);
    command.addOption(preset === undefined ? option : option.preset(preset));
  }
}

/** The library's options out of what commander parsed; of two flags for one option the first that is given counts. */
export function readFlags(parsed: Readonly<Record<string, unknown>>, flags: readonly Flag[]): Record<string, unknown> {
  const options: Record<string, unknown> = {};
  for (const flag of flags) options[flag.name] ??= parsed[new Option(flag.flags).attributeName()];
  return options;
}

/**
 * What `check` returns.
 * @throws {UsageError} for options that the library refuses, in terms of the flags
 */
export function checkFlags<T>(flags: readonly Flag[], check: () => T): T {
  try {
    return check();
  } catch (error) {
    throw inFlags(flags, error);
  }
}

/** What the library says of an option, as a UsageError that says it of the flag; other errors as they are. */
export function inFlags(flags: readonly Flag[], error: unknown): unknown {
  if (!isOptionError(error)) return error;
  const flag = flags.find(({ name }) => name === error.details['option']);
  if (flag === undefined) return error;
  const spelling = new Option(flag.flags).long!;
  // The type of a value is of use in code, not on the command line, where everything is text at first.
  const message = error.message.replace(`"${flag.name}"`, spelling).replace(/ \((number|string)\)$/, '');
  return new UsageError(message, { cause: error });
}

/** By its code: the classes are not loaded before the engine is. */
export function isOptionError(error: unknown): error is SmallMindError {
  return error instanceof Error && 'code' in error && error.code === 'INVALID_OPTION';
}
