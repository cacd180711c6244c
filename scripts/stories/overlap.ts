// How much of its training text a model says word for word: lets it tell stories and looks for the longest piece of
// each that stands in the text. Prints one JSON object.
//   node --conditions=smallmind-source scripts/stories/overlap.ts MODEL TEXT --count 200 --temperature 0.7

import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { loadModel } from '../../src/index.ts';

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    count: { type: 'string', default: '200' },
    temperature: { type: 'string', default: '0.7' },
    prompt: { type: 'string', default: 'Once upon a time' },
    parallel: { type: 'string', default: '32' },
  },
});
const [modelPath, textPath] = positionals;
if (!modelPath || !textPath) throw new Error('usage: overlap.ts MODEL TEXT [--count N] [--temperature T]');
const text = readFileSync(textPath, 'utf8');
const [count, parallel] = [Number(flags.count), Number(flags.parallel)];

/** Pieces from so many characters on are reported: about two sentences. */
const LONG = 100;

await using model = await loadModel(modelPath, { kernels: 'strict', thread: 'inline', parallel });
const stories: string[] = [];
for (let n = 0; n < count; n += parallel) {
  const batch = Array.from({ length: Math.min(parallel, count - n) }, async (_, i) => {
    const options = { temperature: Number(flags.temperature), seed: n + i };
    return flags.prompt + (await model.generate(flags.prompt, options).result).text;
  });
  stories.push(...(await Promise.all(batch)));
}

/** The longest piece of `story` that stands in the text: widened from each start as long as it is found there. */
function longestOverlap(story: string): string {
  let longest = '';
  for (let start = 0; start + longest.length < story.length; start++) {
    while (start + longest.length < story.length) {
      const longer = story.slice(start, start + longest.length + 1);
      if (!text.includes(longer)) break;
      longest = longer;
    }
  }
  return longest;
}

const overlaps = stories.map(longestOverlap).sort((a, b) => b.length - a.length);
const [longest] = overlaps as [string];
console.log(
  JSON.stringify({
    stories: stories.length,
    longest,
    longestCharacters: longest.length,
    timesInText: text.split(longest).length - 1,
    timesInStories: stories.filter((story) => story.includes(longest)).length,
    medianCharacters: overlaps[overlaps.length >> 1]!.length,
    [`storiesWith${LONG}OrMore`]: overlaps.filter(({ length }) => length >= LONG).length,
  }),
);
