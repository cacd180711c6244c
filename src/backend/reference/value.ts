// Evaluated tensors of the reference executor, and the few ways in which operations read and build them.

/** Dense and row-major. Integers are held as float64, too. `rows` counts those of all matrices in it. */
export interface Value {
  readonly data: Float64Array;
  readonly rows: number;
  readonly columns: number;
}

export const at = (v: Value, row: number, column: number): number => v.data[row * v.columns + column]!;

export function build(rows: number, columns: number, element: (row: number, column: number) => number): Value {
  const data = new Float64Array(rows * columns);
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) data[r * columns + c] = element(r, c);
  return { data, rows, columns };
}

export const map = (x: Value, f: (value: number, index: number) => number): Value => ({ ...x, data: x.data.map(f) });

export function sum(n: number, term: (i: number) => number): number {
  let total = 0;
  for (let i = 0; i < n; i++) total += term(i);
  return total;
}
