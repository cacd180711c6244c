// Chat templates: what real ones render, the language in small pieces, and hostile ones, which end with a typed error.

import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { describe, test } from 'node:test';
import { SmallMindError } from '../base/errors.ts';
import { recordComparison } from '../../test/comparison-record.ts';
import { needsShared, sharedPath } from '../../test/shared-data.ts';
import { compileTemplate } from './template.ts';
import { threadMs } from '../../test/thread-time.ts';

interface Case {
  readonly messages: unknown;
  readonly tools?: unknown;
  readonly add_generation_prompt?: boolean;
}

interface Expected {
  readonly now: string;
  readonly bos_token: string;
  readonly eos_token: string;
  readonly cases: Readonly<Record<string, Case>>;
  readonly results: Readonly<
    Record<string, readonly { readonly case: string; readonly expected?: string; readonly error?: string }[]>
  >;
}

const readShared = (name: string): string => readFileSync(sharedPath('chat-templates', name), 'utf8');

async function render(source: string, variables: Record<string, unknown> = {}): Promise<string> {
  return (await compileTemplate(source)).render(variables);
}

function isFailure(words: RegExp) {
  return (error: unknown): boolean => {
    assert.ok(error instanceof SmallMindError, String(error));
    assert.equal(error.code, 'CHAT_TEMPLATE');
    assert.match(error.message, words);
    return true;
  };
}

describe('templates of real models', needsShared(), () => {
  const files = needsShared().skip ? [] : readdirSync(sharedPath('chat-templates')).filter((f) => f.endsWith('.jinja'));
  for (const file of files) {
    test(`${file} renders what Jinja renders`, async () => {
      const { now, cases, results, ...tokens } = JSON.parse(readShared('expected.json')) as Expected;
      const template = await compileTemplate(readShared(file));
      assert.ok(results[file]!.length > 5);
      for (const { case: name, expected, error } of results[file]!) {
        const variables = { tools: null, add_generation_prompt: false, ...tokens, ...cases[name] };
        const act = (): string => template.render(variables, new Date(now));
        if (error === undefined) assert.equal(act(), expected, name);
        else assert.throws(act, isFailure(/says: |fails: /), name);
      }
      recordComparison('templates', { template: file.replace('.jinja', ''), nConversation: results[file]!.length });
    });
  }

  test('the language in small pieces', async () => {
    const pieces = JSON.parse(readShared('jinja-micro.json')) as {
      name: string;
      template: string;
      context: Record<string, unknown>;
      expected: string;
    }[];
    for (const { name, template, context, expected } of pieces) {
      // The globals of these pieces are functions in the original and stay out of JSON.
      assert.equal(await render(template, context), expected, name);
    }
  });
});

describe('hostile templates', () => {
  const HOSTILE: readonly [title: string, template: string, words: RegExp][] = [
    ['raises', "{{ raise_exception('no tools') }}", /says: no tools/],
    ['does not end its block', '{% if x %}', /is not valid/],
    ['is no template', '{{', /is not valid/],
    ['calls what is not there', '{{ nothing() }}', /fails/],
    ['counts to a trillion', '{% for i in range(1000000000000) %}{% endfor %}', /counts from 0/],
    ['counts to infinity', '{{ range(1e308 * 10) }}', /counts from 0|fails/],
    ['nests loops', `${'{% for i in range(1000) %}'.repeat(5)}x${'{% endfor %}'.repeat(5)}`, /computes without end/],
    ['nests empty loops', `${'{% for i in range(60000) %}'.repeat(3)}${'{% endfor %}'.repeat(3)}`, /without end/],
    ['calls itself', '{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}', /fails|without end/],
    ['doubles a string', grow("'x'", 'ns.v + ns.v'), /more than|without end/],
    ['doubles a list', grow('[1]', 'ns.v + ns.v'), /more than|without end/],
    ['holds a list twice, sixty times', grow('[1]', '[ns.v, ns.v]'), /more than|without end/],
    ['nests parentheses', `{{ ${'('.repeat(100_000)}1${')'.repeat(100_000)} }}`, /is not valid/],
    ['is very long', 'x'.repeat(300_000), /300000 characters long/],
  ];
  for (const [title, template, words] of HOSTILE) {
    test(`that ${title} ends with an error within 2 s`, async () => {
      const started = threadMs();
      await assert.rejects(render(template), isFailure(words));
      assert.ok(threadMs() - started < 2000, `${threadMs() - started} ms`);
    });
  }

  function grow(first: string, next: string): string {
    return (
      `{% set ns = namespace(v=${first}) %}{% for i in range(60) %}{% set ns.v = ${next} %}{% endfor %}` +
      '{{ ns.v | tojson }}'
    );
  }
});

test('a conversation of a thousand messages stays within what a template may compute', async () => {
  const chatml =
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}" +
    "{% if not loop.last and messages[loop.index0 + 1].role == m.role %}{{ '!' }}{% endif %}{% endfor %}";
  const messages = Array.from({ length: 1000 }, (_, i) => ({
    role: i % 2 ? 'assistant' : 'user',
    content: `say ${i}`,
  }));
  assert.equal((await render(chatml, { messages })).split('<|im_end|>').length, 1001);
});
