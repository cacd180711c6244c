// Mixture of experts: the choice of experts, what each counts for, the product with their matrices, and the sum. For
// the product the pairs (row, chosen expert) are counted through. The first pair of an expert does the work for all
// that chose it, as rows of one matmul: decoding and prefill are the same kernel, and each weight is read once.

import { ACTIVATION_BLOCK_BYTES, columnsOf, elementsMax } from '../../../../graph/tensor.ts';
import { BLOCK_FORMATS } from '../../../../base/dtype.ts';
import type { Expr, Local } from '../../emit/expression.ts';
import { f32, f32x4, i32, ptr, v128 } from '../../emit/operations.ts';
import { expInto } from '../floats.ts';
import { addressAt } from '../kernel.ts';
import type { Kernel, KernelBody } from '../kernel.ts';
import { MATMUL_SOURCES, expansionBytes, productOf, storeGroup } from './matmul.ts';
import type { SourceOf } from './matmul.ts';
import { groupBlockBytes } from './layout.ts';

/** Groups of eight rows of a matrix that a thread takes at once, where there are enough for all threads. */
const GROUPS_OF_RUN = 16;
/** Into so many runs, at least, a thread's share of one row's groups is divided. */
const RUNS_OF_SHARE = 8;

function buildExpertMatmul(k: KernelBody, { dtype, create }: SourceOf): void {
  const { f } = k;
  const out = k.out();
  const x = k.input(0, 'x');
  const weights = k.input(1, 'weights');
  const ids = k.input(2, 'ids');
  const nChosen = k.param('nChosen');
  const nPair = f.let('nPair', i32.mul(k.rows(), nChosen));
  const pairsOfX = k.param('pairsOfX');
  const nOut = k.param('nOut');
  const nGroups = f.let('nGroups', i32.shr_u(nOut, 3));
  const groupBytes = f.let('groupBytes', ptr.fromI32(k.param('groupBytes')));
  const xRowBytes = f.let('xRowBytes', ptr.fromI32(k.param('xRowBytes')));
  /** The pairs of the present expert. */
  const list = f.let('list', ptr.add(k.scratch(), ptr.fromI32(k.param('listOffset'))));
  const firstGroup = f.local('i32', 'firstGroup');
  const rows = f.local('i32', 'nListed');
  const pairAt = (row: Expr<'i32'>): Expr<'i32'> => i32.load(addressAt(list, row, 4));
  const multiply = productOf(k, dtype, create(k.variant), {
    weights,
    firstGroup,
    groupBytes,
    nIn: k.param('nIn'),
    nBlocks: k.param('nBlocks'),
    rows,
    x: (row) => addressAt(x, i32.div_u(pairAt(row), pairsOfX), xRowBytes),
    finish(group, row, accumulators) {
      accumulators.forEach((sums, c) => storeGroup(k, out, nOut, group, pairAt(i32.add(row, c)), sums));
    },
  });

  const idAt = (pair: Expr<'i32'>): Expr<'i32'> => i32.load(addressAt(ids, pair, 4));
  const [item, pair, other, expert] = ['item', 'pair', 'other', 'expert'].map((name) => f.local('i32', name)) as [
    Local<'i32'>,
    Local<'i32'>,
    Local<'i32'>,
    Local<'i32'>,
  ];
  const [first, end] = [f.local('i32', 'first'), f.local('i32', 'end')];
  const ofRow = i32.mul(nChosen, nGroups);
  const grain = f.let('wanted', i32.add(i32.div_u(ofRow, i32.mul(k.nThreads, RUNS_OF_SHARE)), 1));
  f.if(i32.gt_s(grain, GROUPS_OF_RUN), () => grain.set(GROUPS_OF_RUN));
  k.eachRun(i32.mul(nPair, nGroups), grain, (from, to) => {
    item.set(from);
    f.while(i32.lt_s(item, to), () => {
      pair.set(i32.div_u(item, nGroups));
      first.set(i32.sub(item, i32.mul(pair, nGroups)));
      end.set(i32.add(first, i32.sub(to, item)));
      f.if(i32.gt_s(end, nGroups), () => end.set(nGroups));
      item.set(i32.add(item, i32.sub(end, first)));
      expert.set(idAt(pair));
      other.set(0);
      f.while(i32.ne(idAt(other), expert), () => other.set(i32.add(other, 1)));
      f.if(i32.eq(other, pair), () => {
        rows.set(0);
        f.for(other, { from: pair, to: nPair }, () => {
          f.if(i32.eq(idAt(other), expert), () => {
            i32.store(addressAt(list, rows, 4), other);
            rows.set(i32.add(rows, 1));
          });
        });
        firstGroup.set(i32.mul(expert, nGroups));
        multiply(first, end);
      });
    });
  });
}

const expertMatmul = (source: SourceOf): Kernel => ({
  op: 'expertMatmul',
  dtypes: [source.x, source.dtype],
  params: {
    nChosen: 'i32',
    pairsOfX: 'i32',
    nOut: 'i32',
    nIn: 'i32',
    nBlocks: 'i32',
    groupBytes: 'i32',
    xRowBytes: 'i32',
    listOffset: 'i32',
  },
  values({ out, inputs }) {
    const [x, weights, ids] = inputs.map(({ tensor }) => tensor) as [
      typeof out.tensor,
      typeof out.tensor,
      typeof out.tensor,
    ];
    const nIn = columnsOf(weights);
    const nBlocks = nIn / BLOCK_FORMATS[source.dtype].blockElements;
    const xBlockBytes = x.dtype === 'Q8A' || x.dtype === 'Q8W' ? ACTIVATION_BLOCK_BYTES[x.dtype] : 128;
    const nChosen = columnsOf(ids);
    return {
      nChosen,
      // A row of x is that of all its pairs, or there is one for each.
      pairsOfX: columnsOf(x) === nIn ? nChosen : 1,
      nOut: columnsOf(out.tensor) / nChosen,
      nIn,
      nBlocks,
      groupBytes: nBlocks * groupBlockBytes(source.dtype),
      xRowBytes: (nIn / 32) * xBlockBytes,
      listOffset: expansionBytes(source, nIn),
    };
  },
  scratchBytes: ({ inputs }) =>
    expansionBytes(source, columnsOf(inputs[1]!.tensor)) + 4 * elementsMax(inputs[2]!.tensor),
  build: (k) => buildExpertMatmul(k, source),
});

/** Calls `body` for each row of this thread's share. */
function eachRow(k: KernelBody, body: (row: Local<'i32'>) => void): void {
  const { from, to } = k.share(k.rows());
  const row = k.f.local('i32', 'row');
  k.f.for(row, { from, to }, () => body(row));
}

/** One after the other, each the largest behind the one before, by value and then by place. */
const topK: Kernel = {
  op: 'topK',
  dtypes: [],
  params: { columns: 'i32', k: 'i32' },
  values: ({ inputs, params }) => ({ columns: columnsOf(inputs[0]!.tensor), k: params['k']! }),
  build(k) {
    const { f } = k;
    const out = k.out();
    const x = k.input(0, 'x');
    const columns = k.param('columns');
    const nChosen = k.param('k');
    const [i, j, best, last] = ['i', 'j', 'best', 'last'].map((name) => f.local('i32', name)) as [
      Local<'i32'>,
      Local<'i32'>,
      Local<'i32'>,
      Local<'i32'>,
    ];
    const [value, bestValue, lastValue] = ['value', 'bestValue', 'lastValue'].map((name) => f.local('f32', name)) as [
      Local<'f32'>,
      Local<'f32'>,
      Local<'f32'>,
    ];
    eachRow(k, (row) => {
      const px = f.let('px', addressAt(x, i32.mul(row, columns), 4));
      const po = f.let('po', addressAt(out, i32.mul(row, nChosen), 4));
      last.set(-1);
      lastValue.set(f32.const(Infinity));
      f.for(j, { from: 0, to: nChosen }, () => {
        // Of what is no number, the first: whatever is chosen, it exists.
        best.set(0);
        bestValue.set(f32.const(-Infinity));
        f.for(i, { from: 0, to: columns }, () => {
          value.set(f32.load(addressAt(px, i, 4)));
          const isBehind = i32.or(f32.lt(value, lastValue), i32.and(f32.eq(value, lastValue), i32.gt_s(i, last)));
          f.if(i32.and(isBehind, f32.gt(value, bestValue)), () => {
            best.set(i);
            bestValue.set(value);
          });
        });
        i32.store(addressAt(po, j, 4), best);
        last.set(best);
        lastValue.set(bestValue);
      });
    });
  },
};

const expertWeights: Kernel = {
  op: 'expertWeights',
  dtypes: [],
  params: { columns: 'i32', k: 'i32', isNormalised: 'i32' },
  values: ({ inputs, params }) => ({
    columns: columnsOf(inputs[0]!.tensor),
    k: columnsOf(inputs[1]!.tensor),
    isNormalised: params['isNormalised']!,
  }),
  build(k) {
    const { f } = k;
    const out = k.out();
    const logits = k.input(0, 'logits');
    const ids = k.input(1, 'ids');
    const columns = k.param('columns');
    const nChosen = k.param('k');
    const isNormalised = k.param('isNormalised');
    const i = f.local('i32', 'i');
    const [max, total] = [f.local('f32', 'max'), f.local('f32', 'sum')];
    const exp = f.local('v128', 'exp');
    eachRow(k, (row) => {
      const px = f.let('px', addressAt(logits, i32.mul(row, columns), 4));
      const pid = f.let('pid', addressAt(ids, i32.mul(row, nChosen), 4));
      const po = f.let('po', addressAt(out, i32.mul(row, nChosen), 4));
      const logitAt = (column: Expr<'i32'>): Expr<'f32'> => f32.load(addressAt(px, column, 4));
      const chosenAt = (): Expr<'f32'> => logitAt(i32.load(addressAt(pid, i, 4)));
      const expOf = (logit: Expr<'f32'>): Expr<'f32'> => {
        expInto(f, exp, f32x4.splat(f32.sub(logit, max)));
        return f32x4.extract_lane(exp, 0);
      };
      max.set(f32.const(-Infinity));
      f.for(i, { from: 0, to: columns }, () => max.set(f32.max(max, logitAt(i))));
      total.set(f32.const(0));
      f.if(
        isNormalised,
        () => f.for(i, { from: 0, to: nChosen }, () => total.set(f32.add(total, expOf(chosenAt())))),
        () => f.for(i, { from: 0, to: columns }, () => total.set(f32.add(total, expOf(logitAt(i))))),
      );
      f.for(i, { from: 0, to: nChosen }, () => f32.store(addressAt(po, i, 4), f32.div(expOf(chosenAt()), total)));
    });
  },
};

/** Threads share the columns, in runs of 16. */
const expertSum: Kernel = {
  op: 'expertSum',
  dtypes: [],
  params: { columns: 'i32', k: 'i32' },
  values: ({ out, inputs }) => ({ columns: columnsOf(out.tensor), k: columnsOf(inputs[1]!.tensor) }),
  build(k) {
    const { f } = k;
    const out = k.out();
    const x = k.input(0, 'x');
    const weights = k.input(1, 'weights');
    const rows = k.rows();
    const columns = k.param('columns');
    const nRun = k.param('k');
    const { from, to } = k.share(i32.shr_u(i32.add(columns, 15), 4));
    from.set(i32.shl(from, 4));
    to.set(i32.shl(to, 4));
    f.if(i32.gt_s(to, columns), () => to.set(columns));
    const runBytes = f.let('runBytes', ptr.fromI32(i32.shl(columns, 2)));
    const [row, column, run] = ['row', 'column', 'run'].map((name) => f.local('i32', name)) as [
      Local<'i32'>,
      Local<'i32'>,
      Local<'i32'>,
    ];
    const [px, pw] = [f.local('ptr', 'px'), f.local('ptr', 'pw')];
    const sum = f.local('v128', 'runSum');
    f.for(row, { from: 0, to: rows }, () => {
      const addRuns = (load: (p: Expr<'ptr'>) => Expr<'v128'>): void => {
        px.set(addressAt(x, i32.add(i32.mul(i32.mul(row, nRun), columns), column), 4));
        pw.set(addressAt(weights, i32.mul(row, nRun), 4));
        sum.set(v128.zero());
        f.for(run, { from: 0, to: nRun }, () => {
          sum.set(f32x4.add(sum, f32x4.mul(load(px), v128.load32_splat(pw))));
          px.set(ptr.add(px, runBytes));
          pw.set(ptr.add(pw, 4));
        });
      };
      const target = (): Expr<'ptr'> => addressAt(out, i32.add(i32.mul(row, columns), column), 4);
      column.set(from);
      f.while(i32.le_s(i32.add(column, 4), to), () => {
        addRuns((p) => v128.load(p));
        v128.store(target(), sum);
        column.set(i32.add(column, 4));
      });
      f.while(i32.lt_s(column, to), () => {
        addRuns((p) => v128.load32_zero(p));
        v128.store32_lane(target(), sum, 0);
        column.set(i32.add(column, 1));
      });
    });
  },
};

export const EXPERT_KERNELS: readonly Kernel[] = [...MATMUL_SOURCES.map(expertMatmul), topK, expertWeights, expertSum];
