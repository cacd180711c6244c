// A growing list of bytes with the number formats of the WebAssembly binary format: LEB128, little-endian floats,
// lengths before what they measure. Knows nothing of instructions or modules.

import { assert } from '../../../base/errors.ts';

const scratch = new DataView(new ArrayBuffer(8));

export class ByteWriter {
  readonly bytes: number[] = [];

  byte(...values: readonly number[]): void {
    for (const value of values) this.bytes.push(value);
  }

  /** One by one: spreading a large array overflows the stack. */
  append(values: ArrayLike<number>): void {
    for (let i = 0; i < values.length; i++) this.bytes.push(values[i]!);
  }

  /** LEB128 of a safe integer ≥ 0. */
  unsigned(value: number): void {
    assert(Number.isSafeInteger(value) && value >= 0, `unsigned LEB128 of ${value}`);
    for (; value >= 128; value = Math.floor(value / 128)) this.bytes.push((value % 128) | 128);
    this.bytes.push(value);
  }

  /** Signed LEB128 of −2⁶³..2⁶³−1. */
  signed(value: bigint): void {
    assert(value === BigInt.asIntN(64, value), `signed LEB128 of ${value}`);
    for (; value < -64n || value > 63n; value >>= 7n) this.bytes.push(Number(value & 127n) | 128);
    this.bytes.push(Number(value & 127n));
  }

  f32(value: number): void {
    scratch.setFloat32(0, value, true);
    for (let i = 0; i < 4; i++) this.bytes.push(scratch.getUint8(i));
  }

  f64(value: number): void {
    scratch.setFloat64(0, value, true);
    for (let i = 0; i < 8; i++) this.bytes.push(scratch.getUint8(i));
  }

  /** Length in bytes, then UTF-8. */
  string(text: string): void {
    this.sized((w) => w.append(new TextEncoder().encode(text)));
  }

  /** Length in bytes, then what `write` writes. */
  sized(write: (writer: ByteWriter) => void): void {
    const inner = new ByteWriter();
    write(inner);
    this.unsigned(inner.bytes.length);
    this.append(inner.bytes);
  }

  /** Number of items, then each. */
  vector<T>(items: readonly T[], write: (writer: ByteWriter, item: T, index: number) => void): void {
    this.unsigned(items.length);
    items.forEach((item, i) => write(this, item, i));
  }

  /** A section: its id, its length, its content. */
  section(id: number, write: (writer: ByteWriter) => void): void {
    this.byte(id);
    this.sized(write);
  }
}
