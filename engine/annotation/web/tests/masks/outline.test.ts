// Outlines: closed loops that fill to the mask again.

import { expect, test } from 'vitest';
import { emptyMask, outline, type Mask } from '../../src/lib/masks';
import { drawn, randomMask, seeded, whole } from './samples';

/** Fill loops by the even-odd rule: a pixel is inside when an odd number of borders lie left of it. */
function filled(mask: Mask): Uint8Array {
  const bits = new Uint8Array(mask.width * mask.height);
  for (const loop of outline(mask))
    for (let i = 0; i < loop.length; i += 2) {
      const [ax, ay] = [loop[i]!, loop[i + 1]!];
      const [bx, by] = [loop[(i + 2) % loop.length]!, loop[(i + 3) % loop.length]!];
      expect((ax === bx) !== (ay === by)).toBe(true); // straight, and never of length 0
      if (ax !== bx) continue;
      for (let y = Math.min(ay, by); y < Math.max(ay, by); y++)
        for (let x = ax; x < mask.width; x++) bits[y * mask.width + x]! ^= 1;
    }
  return bits;
}

test('a rectangle has four corners, in image coordinates', () => {
  const [loop, ...others] = outline(drawn('.....', '..##.', '..##.', '.....'));
  expect(others).toEqual([]);
  expect([...loop!]).toEqual([4, 1, 4, 3, 2, 3, 2, 1]);
});

test('a hole has a loop of its own', () => {
  expect(outline(drawn('####', '#..#', '####')).map((loop) => loop.length)).toEqual([8, 8]);
});

test('pixels that touch at a corner have a loop each', () => {
  expect(outline(drawn('#.', '.#')).length).toBe(2);
});

test('an empty mask has none', () => {
  expect(outline(emptyMask(5, 5))).toEqual([]);
});

test('filled by the even-odd rule gives the mask again', () => {
  const random = seeded(4);
  for (let i = 0; i < 200; i++) {
    const mask = randomMask(random, 1 + Math.floor(random() * 20), 1 + Math.floor(random() * 20));
    expect(filled(mask)).toEqual(whole(mask));
  }
});

test('no corner lies within a straight run', () => {
  const random = seeded(5);
  for (let i = 0; i < 50; i++)
    for (const loop of outline(randomMask(random, 15, 15)))
      for (let k = 0; k < loop.length; k += 2) {
        const x = [0, 2, 4].map((step) => loop[(k + step) % loop.length]!);
        const y = [1, 3, 5].map((step) => loop[(k + step) % loop.length]!);
        expect(new Set(x).size > 1 && new Set(y).size > 1).toBe(true);
      }
});
