// Windows of bits: what set operations give equals what they give on whole images.

import { describe, expect, test } from 'vitest';
import {
  contains,
  emptyMask,
  equal,
  intersect,
  iou,
  maskOfBits,
  MaskError,
  subtract,
  tighten,
  union,
  type Mask,
} from '../../src/lib/masks';
import { drawn, randomMask, seeded, text, whole } from './samples';

function expectTight(mask: Mask): void {
  const bits = whole(mask);
  expect(mask.area).toBe(bits.reduce((sum, bit) => sum + bit, 0));
  expect(mask.bits.length).toBe(mask.w * mask.h);
  if (mask.area === 0) return expect([mask.w, mask.h]).toEqual([0, 0]);
  const column = (x: number) => mask.bits.filter((_, i) => i % mask.w === x);
  for (const side of [
    mask.bits.subarray(0, mask.w),
    mask.bits.subarray(-mask.w),
    column(0),
    column(mask.w - 1),
  ])
    expect(side.includes(1)).toBe(true);
}

describe('two masks', () => {
  const random = seeded(1);
  const pairs = Array.from({ length: 200 }, () => {
    const [width, height] = [1 + Math.floor(random() * 20), 1 + Math.floor(random() * 20)];
    return [randomMask(random, width, height), randomMask(random, width, height)] as const;
  });

  test.each([
    ['union', union, (p: number, q: number) => p | q],
    ['subtract', subtract, (p: number, q: number) => p & ~q],
    ['intersect', intersect, (p: number, q: number) => p & q],
  ])('%s equals the same on whole images, in a tight window', (_, combine, bitwise) => {
    for (const [a, b] of pairs) {
      const [before, other] = [whole(a), whole(b)];
      const found = combine(a, b);
      expect(whole(found)).toEqual(before.map((bit, i) => bitwise(bit, other[i]!)));
      expectTight(found);
      expect([whole(a), whole(b)]).toEqual([before, other]); // neither was changed
    }
  });

  test('are equal when their pixels are, whatever the windows', () => {
    const loose: Mask = {
      ...{ width: 4, height: 3, x0: 0, y0: 0, w: 4, h: 3, area: 1 },
      bits: Uint8Array.of(0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0),
    };
    expect(equal(loose, drawn('....', '..#.', '....'))).toBe(true);
    expect(equal(loose, drawn('....', '.#..', '....'))).toBe(false);
    expect(equal(loose, drawn('....', '..#.'))).toBe(false);
    for (const [a, b] of pairs) expect(equal(a, b)).toBe(`${text(a)}` === `${text(b)}`);
  });

  test('have the IoU of their pixels; two empty ones have 0', () => {
    expect(iou(drawn('##..'), drawn('.##.'))).toBeCloseTo(1 / 3);
    expect(iou(emptyMask(4, 1), emptyMask(4, 1))).toBe(0);
  });

  test('of different images are refused', () => {
    expect(() => union(emptyMask(3, 4), emptyMask(4, 3))).toThrow(MaskError);
  });
});

test('tighten cuts a window to what is set and leaves a tight one alone', () => {
  const loose = maskOfBits(9, 9, 2, 3, 3, 3, Uint8Array.of(0, 0, 0, 0, 1, 1, 0, 0, 0));
  expect(loose).toMatchObject({ x0: 3, y0: 4, w: 2, h: 1, area: 2 });
  expect(tighten(loose)).toBe(loose);
});

test('a window that does not fit the image is refused', () => {
  expect(() => maskOfBits(4, 4, 2, 0, 3, 1, new Uint8Array(3))).toThrow(/does not fit 4x4/);
  expect(() => maskOfBits(4, 4, 0, 0, 3, 1, new Uint8Array(2))).toThrow(MaskError);
});

test('contains answers for places between pixels and outside the window', () => {
  const mask = drawn('...', '.#.', '...');
  expect(contains(mask, 1.99, 1.01)).toBe(true);
  expect(contains(mask, 2, 1)).toBe(false);
  expect(contains(mask, -0.5, 1)).toBe(false);
});
