// Splits the real stories into what is trained on and what is held out: the last 5 %, from a story's start on. In the
// first part `<|endoftext|>` stands between stories; the file has a single line break there.
//   node scripts/stories/prepare.ts tinystories-train.txt TRAIN HELD-OUT

import { readFileSync, writeFileSync } from 'node:fs';

const HELD_OUT = 0.05;

const [source, trainPath, heldOutPath] = process.argv.slice(2);
if (!source || !trainPath || !heldOutPath) throw new Error('usage: prepare.ts SOURCE TRAIN HELD-OUT');
const text = readFileSync(source, 'utf8');

/** A single line break with a capital letter behind it; paragraphs within a story are set off by two. */
const STORY_END = /(?<=[^\n])\n(?=[A-Z])/g;

const atLeast = text.length * (1 - HELD_OUT);
const cut = [...text.matchAll(STORY_END)].find(({ index }) => index >= atLeast)!.index;
const stories = text.slice(0, cut).split(STORY_END);
writeFileSync(trainPath, stories.join('<|endoftext|>'));
writeFileSync(heldOutPath, text.slice(cut + 1));
console.log(`${stories.length} stories to train on, ${text.length - cut - 1} characters held out`);
