// Masks as mask prompts: coverage of each low-resolution cell.

import { describe, expect, test } from 'vitest';
import { emptyMask, frameOf, lowResSize, MaskError, maskToLogits } from '../../src/lib/masks';
import { randomMask, seeded, whole } from './samples';

describe.each([
  ['larger than the input', 96, 72],
  ['smaller than the input', 13, 20],
  ['of just the input', 64, 64],
])('an image %s', (_, width, height) => {
  const frame = frameOf(width, height, 64, 32);

  test('gives each cell the share that the mask covers', () => {
    const random = seeded(6);
    const [rows, columns] = lowResSize(frame);
    const [toX, toY] = [width / frame.input[1], height / frame.input[0]];
    const fraction = (cell: number, to: number, pixel: number): number =>
      Math.max(0, Math.min((cell + 1) * 4 * to, pixel + 1) - Math.max(cell * 4 * to, pixel));
    for (let run = 0; run < 10; run++) {
      const mask = randomMask(random, width, height);
      const bits = whole(mask);
      const logits = maskToLogits(mask, frame);
      for (let i = 0; i < logits.length; i++) {
        const [row, column] = [Math.floor(i / columns), i % columns];
        let covered = 0;
        for (let p = 0; p < bits.length; p++)
          if (bits[p])
            covered += fraction(row, toY, Math.floor(p / width)) * fraction(column, toX, p % width);
        expect(logits[i]).toBeCloseTo((covered / (16 * toX * toY)) * 16 - 8, 3);
      }
      expect(logits.length).toBe(rows * columns);
    }
  });

  test('gives an empty mask the surest background', () => {
    expect(new Set(maskToLogits(emptyMask(width, height), frame))).toEqual(new Set([-8]));
  });
});

test('a mask of another image is refused', () => {
  expect(() => maskToLogits(emptyMask(5, 5), frameOf(6, 5, 64, 32))).toThrow(MaskError);
});
