// The picture of losses: well-formed, with everything in its place.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { drawLossCurve } from './loss-curve.ts';
import type { CurvePoint } from './loss-curve.ts';

const curve = (n: number, loss: (step: number) => number): CurvePoint[] =>
  Array.from({ length: n }, (_, i) => ({ step: i * 10, loss: loss(i * 10) }));

/** Fails unless tags match, attributes are quoted, and text has no bare markup. Returns the texts. */
function checkXml(svg: string): string[] {
  const open: string[] = [];
  const texts: string[] = [];
  const part = /<(\/?)([a-z]+)((?:\s+[\w:-]+="[^"<&]*")*)\s*(\/?)>|([^<]+)/gy;
  let end = 0;
  for (const match of svg.matchAll(part)) {
    end = match.index + match[0].length;
    const [, isClosing, tag, , isEmpty, text] = match;
    if (text !== undefined) {
      assert.match(text, /^([^&]|&(amp|lt|gt);)*$/);
      if (text.trim() !== '') texts.push(text);
    } else if (isClosing) assert.equal(open.pop(), tag);
    else if (!isEmpty) open.push(tag!);
  }
  assert.equal(end, svg.length, `not XML from here: ${svg.slice(end, end + 80)}`);
  assert.deepEqual(open, []);
  return texts;
}

const coordinates = (svg: string): [number, number][] =>
  [...svg.matchAll(/points="([^"]*)"/g)].flatMap(([, points]) =>
    points!.split(' ').map((point) => point.split(',').map(Number) as [number, number]),
  );

test('the picture names its axes and series, and has numbers at round steps', () => {
  const training = curve(101, (step) => 1 + 3 / (1 + step / 100));
  const validation = training.filter((_, i) => i % 10 === 0);
  const texts = checkXml(
    drawLossCurve('Cats & dogs <3', [
      { label: 'training', points: training },
      { label: 'validation', points: validation },
    ]),
  );
  const expected = [
    'Cats &amp; dogs &lt;3',
    'step',
    'loss (nats a token)',
    'training',
    'validation',
    '0',
    '200',
    '1000',
  ];
  for (const text of [...expected, '1.0', '4.0']) assert.ok(texts.includes(text), `${text} is not in ${texts}`);
});

test('all points are inside the axes, and greater losses are higher', () => {
  const svg = drawLossCurve('', [{ label: 'a', points: curve(50, (step) => 2 + Math.sin(step)) }]);
  const places = coordinates(svg);
  assert.equal(places.length, 50);
  for (const [x, y] of places) assert.ok(x >= 72 && x <= 776 && y >= 48 && y <= 420, `${x},${y}`);
  const falling = coordinates(drawLossCurve('', [{ label: 'a', points: curve(2, (step) => 10 - step) }]));
  assert.ok(falling[0]![1] < falling[1]![1] && falling[0]![0] < falling[1]![0]);
});

test('long series are averaged over stretches', () => {
  const svg = drawLossCurve('', [{ label: 'a', points: curve(5000, (step) => (step / 10) % 2) }]);
  checkXml(svg);
  const places = coordinates(svg);
  assert.ok(places.length <= 250);
  // Of losses 0 and 1 in turn, every stretch has the mean 0.5.
  assert.ok(new Set(places.map(([, y]) => y)).size === 1);
});

test('no points, one point, equal losses and huge ones are pictures as well', () => {
  const point = { step: 3, loss: 2 };
  for (const points of [[], [point], [point, { step: 4, loss: 2 }], [point, { step: 9, loss: 1e300 }]]) {
    const svg = drawLossCurve('', [{ label: 'a', points }]);
    checkXml(svg);
    assert.doesNotMatch(svg, /NaN|Infinity|undefined/);
  }
  assert.doesNotMatch(drawLossCurve('', [{ label: 'a', points: [{ step: 1, loss: Number.NaN }, point] }]), /NaN/);
  checkXml(drawLossCurve('', []));
});
