// Files that are no model, are cut off, or lack what a model needs: one clear error each, through the public API, and
// nothing left open or running.

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { GgufError, SmallMindError, loadModel } from '../../src/index.ts';
import type { LoadOptions, ModelSource } from '../../src/index.ts';
import { editedModel, goodModel, setBytes, setTensor } from './edited-model.ts';
import type { ModelContent } from './edited-model.ts';

/** Smaller than usual, where no K quant needs rows of 256. */
const SMALL = { nEmbd: 64, nFf: 64 };

const INLINE: LoadOptions = { thread: 'inline', threads: 1 };

let folder: string;
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'smallmind-'));
});
after(() => rmSync(folder, { recursive: true }));

async function refusalOf(source: ModelSource, options: LoadOptions = INLINE): Promise<SmallMindError> {
  try {
    await using model = await loadModel(source, options);
    assert.fail(`${model.info.name} was loaded`);
  } catch (error) {
    assert.ok(error instanceof SmallMindError, String(error));
    return error;
  }
}

/** That inline, in the worker and on the reference the same error comes, and one that says what is expected. */
async function assertRefused(source: () => ModelSource, code: string, message: RegExp): Promise<void> {
  const ways: LoadOptions[] = [INLINE, { thread: 'worker', threads: 1 }, { ...INLINE, kernels: 'reference' }];
  for (const way of ways) {
    const error = await refusalOf(source(), way);
    assert.equal(error.code, code, String(error));
    assert.match(error.message, message);
  }
}

describe('what is no model file is refused', () => {
  test('a file that does not exist', async () => {
    const path = join(folder, 'none.gguf');
    await assertRefused(() => path, 'FILE_NOT_FOUND', /none\.gguf: no such file; check the path/);
    assert.deepEqual((await refusalOf(path)).details, { path });
  });

  test('a directory', async () => {
    const path = join(folder, 'directory.gguf');
    mkdirSync(path);
    await assertRefused(() => path, 'FILE_UNREADABLE', /is a directory; give the path of a \.gguf file/);
  });

  test('a path through a file', async () => {
    const path = join(folder, 'file');
    writeFileSync(path, 'x');
    await assertRefused(() => join(path, 'model.gguf'), 'FILE_UNREADABLE', /file/);
  });

  test('an empty file', async () => {
    const path = join(folder, 'empty.gguf');
    writeFileSync(path, '');
    await assertRefused(() => path, 'GGUF_TRUNCATED', /empty\.gguf.*the file is empty; download it again/);
    await assertRefused(() => new Uint8Array(0), 'GGUF_TRUNCATED', /memory.*the file is empty/);
  });

  test('a text, a web page, a zip file', async () => {
    const named = (text: string) => () => new TextEncoder().encode(text);
    await assertRefused(named('Once upon a time'), 'GGUF_INVALID', /expected "GGUF", got "Once": not a GGUF file/);
    await assertRefused(named('<!DOCTYPE html>'), 'GGUF_INVALID', /looks like a web page/);
    await assertRefused(named('PK\x03\x04....'), 'GGUF_INVALID', /looks like a zip/);
  });
});

test('a file that is cut off anywhere is refused as truncated', async () => {
  const whole = goodModel(SMALL);
  // Densely through the head, which ends after some 8 KB, and sparsely through the weights.
  const lengths = [
    ...Array.from({ length: 30 }, (_, i) => 1 + i * 311),
    ...[0.3, 0.6, 0.99].map((f) => f * whole.length),
  ];
  for (const length of lengths) {
    const error = await refusalOf(whole.subarray(0, Math.floor(length)));
    assert.ok(error instanceof GgufError);
    assert.equal(error.code, 'GGUF_TRUNCATED', `${length} bytes: ${error.message}`);
    assert.match(error.message, /memory/);
  }
});

test('a source that is shorter than it says is refused as truncated, not waited for', async () => {
  const whole = goodModel(SMALL);
  for (const thread of ['inline', 'worker'] as const) {
    const read = async (offsetBytes: number, target: Uint8Array): Promise<void> => {
      if (offsetBytes + target.length > whole.length - 4096)
        throw new GgufError('GGUF_TRUNCATED', 'the source has ended');
      target.set(whole.subarray(offsetBytes, offsetBytes + target.length));
    };
    const source = { name: 'short', sizeBytes: whole.length, read, close: async () => {} };
    const error = await refusalOf(source, { thread, threads: 1 });
    assert.ok(error instanceof GgufError);
    assert.deepEqual([error.code, error.message], ['GGUF_TRUNCATED', 'the source has ended']);
  }
});

describe('a model file is refused', () => {
  const cases: readonly [what: string, code: string, message: RegExp, edit: (content: ModelContent) => void][] = [
    [
      'in which a tensor is missing',
      'GGUF_MISSING',
      /tensor "blk\.1\.ffn_up\.weight" is missing; the file is incomplete/,
      ({ tensors }) => tensors.delete('blk.1.ffn_up.weight'),
    ],
    [
      'without an embedding table',
      'GGUF_MISSING',
      /token_embd|vocab_size/,
      ({ tensors }) => tensors.delete('token_embd.weight'),
    ],
    [
      'in which a tensor has another shape',
      'SHAPE_MISMATCH',
      /"blk\.0\.attn_k\.weight" expected shape \[128, 256\], got \[64, 256\]/,
      (content) => setTensor(content, { name: 'blk.0.attn_k.weight', dtype: 'F32', shape: [64, 256] }, 4 * 64 * 256),
    ],
    [
      'in which a matrix is a vector',
      'SHAPE_MISMATCH',
      /"blk\.0\.attn_q\.weight" expected shape \[256, 256\], got \[65536\]/,
      (content) => setTensor(content, { name: 'blk.0.attn_q.weight', dtype: 'F32', shape: [65536] }, 4 * 65536),
    ],
    [
      'in which a vector is a matrix',
      'SHAPE_MISMATCH',
      /"output_norm\.weight" expected shape \[256\], got \[1, 256\]/,
      (content) => setTensor(content, { name: 'output_norm.weight', dtype: 'F32', shape: [1, 256] }, 4 * 256),
    ],
    [
      'with a tensor for each expert, as old files have them',
      'UNSUPPORTED_FEATURE',
      /a tensor for each expert.*April 2024.*convert the model again/,
      (content) => {
        content.metadata.set('llama.expert_count', { type: 'u32', value: 8 });
        content.metadata.set('llama.expert_used_count', { type: 'u32', value: 2 });
        setTensor(content, { name: 'blk.0.ffn_gate.0.weight', dtype: 'F32', shape: [64, 256] }, 4 * 64 * 256);
      },
    ],
    [
      'with two matrices of the experts in one',
      'UNSUPPORTED_FEATURE',
      /"ffn_gate_up_exps".*convert the model with the two apart/,
      (content) => {
        content.metadata.set('llama.expert_count', { type: 'u32', value: 2 });
        content.metadata.set('llama.expert_used_count', { type: 'u32', value: 1 });
        const shape = [2, 8, 256];
        setTensor(content, { name: 'blk.0.ffn_gate_up_exps.weight', dtype: 'F32', shape }, 4 * 2 * 8 * 256);
      },
    ],
    [
      'with a tensor in a layer that nobody reads',
      'UNSUPPORTED_FEATURE',
      /tensor "blk\.1\.attn_q\.scale" belongs to a variant of "llama".*use another/,
      (content) => setTensor(content, { name: 'blk.1.attn_q.scale', dtype: 'F32', shape: [1] }, 4),
    ],
    [
      'with a matrix in a type that has no kernels',
      'UNSUPPORTED_DTYPE',
      /"blk\.0\.ffn_gate\.weight".*I16.*Q8_0/,
      (content) => setTensor(content, { name: 'blk.0.ffn_gate.weight', dtype: 'I16', shape: [256, 256] }, 256 * 512),
    ],
    [
      'with an embedding table in a type that has no kernels',
      'UNSUPPORTED_DTYPE',
      /"token_embd\.weight".*I16.*Q8_0/,
      (content) => setTensor(content, { name: 'token_embd.weight', dtype: 'I16', shape: [300, 256] }, 300 * 512),
    ],
    [
      'with a norm in a type that has no kernels',
      'UNSUPPORTED_DTYPE',
      /"output_norm\.weight".*I16/,
      (content) => setTensor(content, { name: 'output_norm.weight', dtype: 'I16', shape: [256] }, 512),
    ],
    [
      'whose vocabulary is not that of its embedding',
      'SHAPE_MISMATCH',
      /vocabulary has 300 tokens, the embedding table 299 rows/,
      (content) => {
        setTensor(content, { name: 'token_embd.weight', dtype: 'F32', shape: [299, 256] }, 4 * 299 * 256);
        setTensor(content, { name: 'output.weight', dtype: 'F32', shape: [299, 256] }, 4 * 299 * 256);
      },
    ],
    [
      'with RoPE factors that nothing can be divided by',
      'GGUF_INVALID',
      /"rope_freqs\.weight" expected positive numbers, got 0/,
      (content) => setTensor(content, { name: 'rope_freqs.weight', dtype: 'F32', shape: [32] }, 4 * 32),
    ],
  ];
  for (const [what, code, message, edit] of cases) {
    test(what, async () => {
      const bytes = await editedModel(edit);
      await assertRefused(() => bytes, code, message);
    });
  }
});

describe('weights that are no numbers are refused by the name of their tensor', () => {
  const F32_NAN = [0, 0, 0xc0, 0x7f];
  const F32_INFINITY = [0, 0, 0x80, 0xff];
  const F16_NAN = [0, 0x7e];
  const cases = [
    ['NaN in an F32 matrix', 'F32', 'blk.1.ffn_down.weight', 4 * 1000, F32_NAN],
    ['-Infinity in an F32 matrix', 'F32', 'output.weight', 4 * 5, F32_INFINITY],
    ['NaN in the embedding table', 'F32', 'token_embd.weight', 0, F32_NAN],
    ['NaN in a norm', 'F32', 'blk.0.attn_norm.weight', 4 * 60, F32_NAN],
    ['Infinity in the last norm', 'F32', 'output_norm.weight', 4 * 63, F32_INFINITY],
    ['NaN in an F16 matrix', 'F16', 'blk.0.attn_v.weight', 2 * 77, F16_NAN],
    ['NaN as a Q8_0 scale', 'Q8_0', 'blk.0.attn_output.weight', 34 * 9, F16_NAN],
    ['NaN as a Q4_0 scale', 'Q4_0', 'blk.1.attn_q.weight', 18 * 9, F16_NAN],
  ] as const;
  for (const [what, dtype, name, offsetBytes, bytes] of cases) {
    test(what, async () => {
      const file = await editedModel((content) => setBytes(content, name, offsetBytes, bytes), { ...SMALL, dtype });
      await assertRefused(() => file, 'GGUF_INVALID', new RegExp(`"${name.replaceAll('.', '\\.')}"`));
    });
  }

  test('finite weights whose products overflow fail the text with NUMERIC, and the model goes on', async () => {
    const huge = Uint8Array.from([0, 0, 0x7f, 0x7f]);
    const file = await editedModel(({ tensors }) => {
      const { bytes } = tensors.get('output.weight')!;
      for (let i = 0; i < bytes.length; i += 4) bytes.set(huge, i);
    });
    for (const thread of ['inline', 'worker'] as const) {
      await using model = await loadModel(file, { thread, threads: 1 });
      for (const prompt of ['1', '2']) {
        await assert.rejects(model.generate(prompt).result, {
          name: 'SmallMindError',
          code: 'NUMERIC',
          message: /logit.*no token can be chosen.*weights/,
        });
      }
    }
  });
});

test('a vector that is not finite fails with NUMERIC, and the model goes on', async () => {
  const huge = Uint8Array.from([0, 0, 0x7f, 0x7f]);
  const file = await editedModel((content) => {
    for (let i = 0; i < 256; i++) setBytes(content, 'output_norm.weight', 4 * i, [...huge]);
  });
  await using model = await loadModel(file, INLINE);
  for (const pooling of ['mean', 'last'] as const) {
    await assert.rejects(model.embed(['1', '2'], { pooling }), {
      code: 'NUMERIC',
      message: /vector of "texts\[0\]" is not finite.*weights are broken.*or too large/,
    });
  }
});

test('a refused file is closed', { skip: process.platform !== 'linux' && 'lists open files by /proc' }, async () => {
  const openFiles = (): string[] =>
    readdirSync('/proc/self/fd').flatMap((fd) => {
      try {
        return [readlinkSync(`/proc/self/fd/${fd}`)].filter((target) => target.startsWith(folder));
      } catch {
        return [];
      }
    });
  const path = join(folder, 'cut.gguf');
  writeFileSync(path, goodModel().subarray(0, 20_000));
  for (const thread of ['inline', 'worker'] as const) {
    assert.equal((await refusalOf(path, { thread, threads: 1 })).code, 'GGUF_TRUNCATED');
    assert.deepEqual(openFiles(), []);
  }
});
