// Places inside masks.

import { expect, test } from 'vitest';
import { anchorOf, contains, emptyMask, strokeMask, subtract } from '../../src/lib/masks';
import { drawn, randomMask, seeded } from './samples';

test('of a disc is near its middle', () => {
  const anchor = anchorOf(strokeMask([[300, 200]], 150, 800, 600))!;
  expect(Math.hypot(anchor.x - 300, anchor.y - 200)).toBeLessThan(8);
});

test('of a ring lies in the ring', () => {
  const disc = strokeMask([[300, 200]], 150, 800, 600);
  const anchor = anchorOf(subtract(disc, strokeMask([[300, 200]], 90, 800, 600)))!;
  const away = Math.hypot(anchor.x - 300, anchor.y - 200);
  expect(away).toBeGreaterThan(100);
  expect(away).toBeLessThan(140);
});

test('keeps away from a click that says what is wrong', () => {
  const bar = strokeMask(
    [
      [100, 50],
      [500, 50],
    ],
    30,
    600,
    100,
  );
  const anchor = anchorOf(bar, [{ x: 110, y: 50 }])!;
  expect(anchor.x).toBeGreaterThan(135);
});

test('is always a pixel of the mask, also of thin and ragged ones', () => {
  const random = seeded(8);
  for (let i = 0; i < 100; i++) {
    const mask = randomMask(random, 1 + Math.floor(random() * 250), 1 + Math.floor(random() * 90));
    const anchor = anchorOf(mask);
    expect(anchor === null).toBe(mask.area === 0);
    if (anchor) expect(contains(mask, anchor.x, anchor.y)).toBe(true);
  }
  const line = strokeMask(
    [
      [0, 0.5],
      [999, 0.5],
    ],
    0.6,
    1000,
    700,
  );
  expect(contains(line, anchorOf(line)!.x, anchorOf(line)!.y)).toBe(true);
  expect(anchorOf(drawn('..#'))).toEqual({ x: 2.5, y: 0.5 });
});

test('of an empty mask is none', () => {
  expect(anchorOf(emptyMask(3, 3))).toBeNull();
});
