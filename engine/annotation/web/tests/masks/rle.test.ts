// The codec against itself and against known strings; tests/annotation/test_web_parity.py holds it
// against pycocotools.

import { describe, expect, test } from 'vitest';
import {
  emptyMask,
  equal,
  fromRle,
  MaskError,
  strokeMask,
  subtract,
  toRle,
} from '../../src/lib/masks';
import { drawn, randomMask, seeded } from './samples';

describe('RLE', () => {
  test.each([
    [drawn('....', '....'), '8'],
    [drawn('####', '####'), '08'],
    [drawn('#...', '....'), '017'],
    [drawn('....', '...#'), '71'],
    [drawn('.##.', '.##.'), '242'],
  ])('of %o is the string that pycocotools writes', (mask, counts) => {
    expect(toRle(mask)).toEqual({ size: [mask.height, mask.width], counts });
  });

  test('survives the way there and back', () => {
    const random = seeded(2);
    for (let i = 0; i < 300; i++) {
      const [width, height] = [1 + Math.floor(random() * 40), 1 + Math.floor(random() * 40)];
      const mask = randomMask(random, width, height);
      const back = fromRle(toRle(mask));
      expect(equal(back, mask)).toBe(true);
      expect([back.x0, back.y0, back.w, back.h]).toEqual([mask.x0, mask.y0, mask.w, mask.h]);
    }
  });

  test('of a window that is not tight is the same', () => {
    const loose = { ...emptyMask(6, 5), w: 6, h: 5, bits: new Uint8Array(30), area: 0 };
    loose.bits.set([1, 1], 14);
    loose.area = 2;
    expect(toRle(loose)).toEqual(toRle(drawn('......', '......', '..##..', '......', '......')));
  });

  test('of 24 megapixels keeps every pixel', () => {
    const disc = strokeMask([[3000, 1500]], 1400, 6000, 4000);
    const mask = subtract(
      disc,
      strokeMask(
        [
          [1800, 1500],
          [3100, 1900],
        ],
        90,
        6000,
        4000,
      ),
    );
    expect(equal(fromRle(toRle(mask)), mask)).toBe(true);
  });

  test.each([
    ['too few pixels', [2, 4], '7'],
    ['too many pixels', [2, 4], '9'],
    ['a foreign character', [2, 4], '2~2'],
    ['a cut number', [2, 4], '2X'],
    ['a negative run', [2, 4], '2222N'],
    ['no size', [0, 4], ''],
    ['an endless number', [2, 4], 'oooooooooooooo0'],
    ['a character beyond ASCII', [2, 4], '2\u20ac2'],
  ])('with %s is refused', (_, [h, w], counts) => {
    expect(() => fromRle({ size: [h!, w!], counts })).toThrow(MaskError);
  });
});
