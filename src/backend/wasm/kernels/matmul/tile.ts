// What a tile of a matrix product is: some rows of x times one group of eight rows of W, or more groups at once.

import type { Local } from '../../emit/expression.ts';
import type { FunctionBuilder } from '../../emit/function-builder.ts';

/** Accumulators of a group in a tile: [row of x][rows 0..3 and 4..7 of the group]. */
export type Accumulators = readonly (readonly [Local<'v128'>, Local<'v128'>])[];

/** A group of eight rows of W, and what a tile adds up of it. */
export interface TileGroup {
  /** At the group's first block; may be moved. */
  readonly w: Local<'ptr'>;
  readonly accumulators: Accumulators;
}

/**
 * Emits the accumulation of one tile.
 * @param x  addresses of the tile's rows of x; may be moved
 */
export type Tile = (
  groups: readonly [TileGroup, ...TileGroup[]],
  x: readonly Local<'ptr'>[],
  nBlocks: Local<'i32'>,
) => void;

export interface MatmulSource {
  /** Rows of x in a tile, widest first; the last is 1, which finishes any number of rows. */
  readonly tileRows: readonly number[];
  /** Groups that a tile of one row takes at once: what hides the latency of its few accumulators. */
  readonly groupsOfOne: number;
  /** Prepares constants in the function; the tile may then be emitted for any number of rows. */
  prepare(f: FunctionBuilder): Tile;
  /** From how many rows of x on a group is expanded to f32 columns, which tiles of F32 then read. */
  readonly expansionRows: number;
}
