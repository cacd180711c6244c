// Numbers and tables for people.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  cut,
  formatBytes,
  formatColumns,
  formatCount,
  formatRate,
  oneLine,
  widthOf,
  withoutControls,
  wrap,
} from './text.ts';

test('sizes have at most three digits and a binary unit', () => {
  const cases = { 0: '0 bytes', 999: '999 bytes', 1000: '1.0 KiB', 102348: '99.9 KiB', 1185728: '1.1 MiB' };
  for (const [bytes, expected] of Object.entries(cases)) assert.equal(formatBytes(Number(bytes)), expected);
  assert.equal(formatBytes(2 ** 32), '4.0 GiB');
  assert.equal(formatBytes(500 * 2 ** 40), '500 TiB');
});

test('counts have separators, and slow rates a fraction', () => {
  assert.equal(formatCount(292800), '292,800');
  assert.deepEqual([812.4, 10, 9.26, 0].map(formatRate), ['812', '10', '9.3', '0.0']);
});

test('control characters and what reorders text are escaped, the rest stays', () => {
  assert.equal(oneLine('a\tb\n"c" \\ ▁é日'), 'a\\tb\\n"c" \\\\ ▁é日');
  assert.equal(oneLine('\u001b[2J\u009b\u007f\u202e'), '\\u001b[2J\\u009b\\u007f\\u202e');
});

test('columns are as wide as their widest cell, without blanks at the end', () => {
  assert.deepEqual(
    formatColumns(
      [
        ['a', '10', 'x'],
        ['bcd', '5', ''],
      ],
      [1],
    ),
    ['a    10  x', 'bcd   5'],
  );
});

test('text is cut with an ellipsis, and wrapped at spaces', () => {
  assert.deepEqual([cut('abcdef', 6), cut('abcdefg', 6)], ['abcdef', 'abcde…']);
  assert.deepEqual(wrap('one two three', 7), ['one two', 'three']);
  assert.deepEqual(wrap('unbreakable', 4), ['unbreakable']);
});

test('text loses what would steer a terminal, and keeps lines and tabs', () => {
  assert.equal(withoutControls('a\tb\r\n\u001b[31mc\u009b2J\u007f é'), 'a\tb\n[31mc2J é');
});

test('lines have 80 characters where the output does not say how many there are', () => {
  assert.deepEqual([{}, { columns: 0 }, { columns: 1 }, { columns: 200 }].map(widthOf), [80, 80, 1, 200]);
});
