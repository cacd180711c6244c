// Operations of the layers: embedding, normalisation, element-by-element functions, rotary positions.

import type { Operation, OpParams } from './operation.ts';
import { expect, inferElementwise, operands, sameAsFirst } from './operation.ts';
import type { ActivationDType, Graph, Tensor } from './tensor.ts';
import { columnsOf, dimMax } from './tensor.ts';

/** The derivative by an operand that may have been one row for all. */
const reduceToShape = (g: Graph, operand: Tensor, d: Tensor): Tensor =>
  operand.shape.length === 1 && d.shape.length > 1 ? g.apply('sumRows', [d]) : d;

/** Σ over rows of dOut · x̂. */
const normWeightGradient = (g: Graph, dOut: Tensor, x: Tensor, params: OpParams): Tensor =>
  g.apply('sumRows', [g.apply('mul', [dOut, g.apply('normalize', [x], params)])]);

export type LayerOp =
  | 'embed'
  | 'gatherRows'
  | 'rmsNorm'
  | 'layerNorm'
  | 'add'
  | 'mul'
  | 'scale'
  | 'softcap'
  | 'sigmoid'
  | 'silu'
  | 'gelu'
  | 'siluMul'
  | 'rope'
  | 'quantize';

/** The type of a result that is quantised where it is made. */
function quantizedType({ quantized }: OpParams): { dtype?: ActivationDType } {
  return quantized ? { dtype: quantized === 1 ? 'Q8A' : 'Q8W' } : {};
}

export const LAYER_OPERATIONS: Readonly<Record<LayerOp, Operation>> = {
  /**
   * Rows of a table: out[i] = weight[ids[i]]. With ids i32[rows, k] there are k of them side by side: f32[rows,
   * k · columns].
   */
  embed: {
    write: 'store',
    infer(inputs) {
      const [weight, ids] = operands(inputs, 2, 'embed') as [Tensor, Tensor];
      expect(ids.dtype === 'I32', 'embed', inputs, 'ids must be i32');
      const nBeside = ids.shape.length === 1 ? 1 : columnsOf(ids);
      return { shape: [ids.shape[0]!, nBeside * columnsOf(weight)] };
    },
    gradient: (g, node, dOut) => [
      g.apply('embedGradient', [dOut, node.inputs[1]!], { nRows: dimMax(node.inputs[0]!.shape[0]!) }),
      undefined,
    ],
  },

  /** out[i] = x[rows[i]]: the rows whose logits are wanted. */
  gatherRows: {
    write: 'store',
    infer(inputs) {
      const [x, rows] = operands(inputs, 2, 'gatherRows') as [Tensor, Tensor];
      expect(rows.shape.length === 1 && rows.dtype === 'I32', 'gatherRows', inputs, 'rows must be i32[n]');
      return { shape: [rows.shape[0]!, columnsOf(x)] };
    },
  },

  /**
   * x / sqrt(mean(x²) + eps) · weight, row by row, or by each run of a row (a head) that is as long as the weight.
   * Params: eps, quantized (as of `siluMul`; of whole rows only).
   */
  rmsNorm: {
    write: 'inPlace',
    infer(inputs, params) {
      const [x, weight] = operands(inputs, 2, 'rmsNorm') as [Tensor, Tensor];
      const nRuns = columnsOf(x) / columnsOf(weight);
      const isDivided = Number.isInteger(nRuns) && !(params['quantized'] && nRuns > 1);
      expect(weight.shape.length === 1 && isDivided, 'rmsNorm', inputs, 'weight is one row, or a run of it');
      expect(params['eps']! >= 0, 'rmsNorm', inputs, 'eps must not be negative');
      return { shape: x.shape, ...quantizedType(params) };
    },
    gradient: (g, { inputs, params }, dOut) => {
      const isWhole = columnsOf(inputs[0]!) === columnsOf(inputs[1]!);
      expect(isWhole, 'rmsNorm', inputs, 'only norms of whole rows have a derivative');
      return [
        g.apply('normGradient', [dOut, inputs[0]!, inputs[1]!], { eps: params['eps']!, centred: 0 }),
        normWeightGradient(g, dOut, inputs[0]!, { eps: params['eps']!, centred: 0 }),
      ];
    },
  },

  /**
   * (x − mean) / sqrt(variance + eps) · weight + bias, row by row, or by each of `nRuns` equal parts of a row.
   * Params: eps, nRuns (default 1).
   */
  layerNorm: {
    write: 'inPlace',
    infer(inputs, params) {
      const [x, weight, bias] = operands(inputs, 3, 'layerNorm') as [Tensor, Tensor, Tensor];
      const isRow = weight.shape.length === 1 && bias.shape.length === 1;
      expect(isRow && columnsOf(weight) === columnsOf(x), 'layerNorm', inputs, 'weight and bias are one row');
      expect(columnsOf(x) % (params['nRuns'] ?? 1) === 0, 'layerNorm', inputs, 'a row must divide into runs');
      expect(params['eps']! >= 0, 'layerNorm', inputs, 'eps must not be negative');
      return { shape: x.shape };
    },
    gradient: (g, { inputs, params }, dOut) => {
      expect((params['nRuns'] ?? 1) === 1, 'layerNorm', inputs, 'only norms of whole rows have a derivative');
      return [
        g.apply('normGradient', [dOut, inputs[0]!, inputs[1]!], { eps: params['eps']!, centred: 1 }),
        normWeightGradient(g, dOut, inputs[0]!, { eps: params['eps']!, centred: 1 }),
        g.apply('sumRows', [dOut]),
      ];
    },
  },

  /** a + b; b may be one row, added to every row of a. */
  add: {
    write: 'inPlace',
    infer: inferElementwise('add'),
    gradient: (g, { inputs }, dOut) => [dOut, reduceToShape(g, inputs[1]!, dOut)],
  },

  /** a · b, element by element; b may be one row. */
  mul: {
    write: 'inPlace',
    infer: inferElementwise('mul'),
    gradient: (g, { inputs }, dOut) => [
      g.apply('mul', [dOut, inputs[1]!]),
      reduceToShape(g, inputs[1]!, g.apply('mul', [dOut, inputs[0]!])),
    ],
  },

  /** factor · x. Params: factor. */
  scale: {
    write: 'inPlace',
    infer: sameAsFirst('scale', 1),
    gradient: (g, { params }, dOut) => [g.apply('scale', [dOut], params)],
  },

  /** cap · tanh(x / cap): what is far below the cap stays as it is. Params: cap, above 0. */
  softcap: {
    write: 'inPlace',
    infer(inputs, params) {
      expect(params['cap']! > 0, 'softcap', inputs, 'cap must be above 0');
      return sameAsFirst('softcap', 1)(inputs, params);
    },
  },

  /** 1 / (1 + e^−x). */
  sigmoid: { write: 'inPlace', infer: sameAsFirst('sigmoid', 1) },

  /** x · sigmoid(x). */
  silu: {
    write: 'inPlace',
    infer: sameAsFirst('silu', 1),
    gradient: (g, { inputs }, dOut) => [g.apply('siluGradient', [dOut, inputs[0]!])],
  },

  /** GELU in GPT-2's form: x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³))). */
  gelu: {
    write: 'inPlace',
    infer: sameAsFirst('gelu', 1),
    gradient: (g, { inputs }, dOut) => [g.apply('geluGradient', [dOut, inputs[0]!])],
  },

  /**
   * silu(a) · b: what lowering makes of the two. Params: quantized (1: the result is Q8A, 2: Q8W, as `quantize` would
   * make it; 0 or absent: F32).
   */
  siluMul: {
    write: 'inPlace',
    infer: (inputs, params) => ({ ...inferElementwise('siluMul')(inputs, params), ...quantizedType(params) }),
  },

  /**
   * Rotary positions on [rows, nHead · headDim]. Operands: x, positions i32[rows], table f32[nCtx, nRot] of
   * (cos, sin) pairs. Params: headDim, nRot, neox (0: pairs (2i, 2i+1); 1: pairs (i, i + nRot/2)), inverse (1: turns
   * back; 0 if absent).
   */
  rope: {
    write: 'inPlace',
    infer(inputs, params) {
      const [x, positions, angles] = operands(inputs, 3, 'rope') as [Tensor, Tensor, Tensor];
      const { headDim, nRot } = params as { headDim: number; nRot: number };
      expect(positions.dtype === 'I32', 'rope', inputs, 'positions must be i32');
      expect(columnsOf(angles) === nRot && nRot % 2 === 0 && nRot <= headDim, 'rope', inputs, 'table is [nCtx, nRot]');
      expect(columnsOf(x) % headDim === 0, 'rope', inputs, 'columns must be a multiple of headDim');
      return { shape: x.shape };
    },
    gradient: (g, { inputs, params }, dOut) => [
      g.apply('rope', [dOut, inputs[1]!, inputs[2]!], { ...params, inverse: 1 - (params['inverse'] ?? 0) }),
      undefined,
      undefined,
    ],
  },

  /**
   * Activations to 8 bits, by blocks of 32 (see ActivationDType): what lowering puts before an integer matmul.
   * Params: quantized (1: Q8A, 2: Q8W).
   */
  quantize: {
    write: 'store',
    infer(inputs, params) {
      const [x] = operands(inputs, 1, 'quantize') as unknown as [Tensor];
      expect(columnsOf(x) % 32 === 0, 'quantize', inputs, 'columns must be a multiple of 32');
      return { shape: x.shape, dtype: 'Q8A', ...quantizedType(params) };
    },
  },
};
