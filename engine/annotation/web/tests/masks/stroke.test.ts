// Strokes: every pixel whose centre is near enough, no other.

import { expect, test } from 'vitest';
import { equal, MaskError, strokeMask, union, type StrokePoint } from '../../src/lib/masks';
import { seeded, text, whole } from './samples';

/** Distance of a place to a line of points, by the definition. */
function distance(x: number, y: number, points: readonly StrokePoint[]): number {
  const to = ([ax, ay]: StrokePoint, [bx, by]: StrokePoint): number => {
    const squared = (bx - ax) ** 2 + (by - ay) ** 2;
    const along = squared === 0 ? 0 : ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / squared;
    const t = Math.min(1, Math.max(0, along));
    return Math.hypot(x - ax - t * (bx - ax), y - ay - t * (by - ay));
  };
  return Math.min(...points.map((point, i) => to(points[Math.max(0, i - 1)]!, point)));
}

test('a click with a brush of 2.6 pixels is a small disc', () => {
  expect(text(strokeMask([[3, 3]], 2.6, 6, 6))).toEqual([
    '..##..',
    '.####.',
    '######',
    '######',
    '.####.',
    '..##..',
  ]);
});

test('holds the pixels whose centre lies within the radius of the line, clipped to the image', () => {
  const random = seeded(3);
  for (let run = 0; run < 60; run++) {
    const points = Array.from(
      { length: 1 + Math.floor(random() * 4) },
      () => [random() * 50 - 10, random() * 40 - 10] as const,
    );
    if (run % 3 === 0) points.push([points[0]![0], 20]); // straight up or down
    if (run % 3 === 1) points.push([25, points.at(-1)![1]]); // level
    const radius = 0.3 + random() * 9;
    const bits = whole(strokeMask(points, radius, 32, 24));
    for (let i = 0; i < bits.length; i++) {
      const away = distance((i % 32) + 0.5, Math.floor(i / 32) + 0.5, points);
      if (Math.abs(away - radius) > 1e-9) expect(bits[i]).toBe(away < radius ? 1 : 0);
    }
  }
});

test('drawn piece by piece is the stroke drawn at once', () => {
  const points: StrokePoint[] = [
    [4, 4],
    [20, 9],
    [11, 22],
    [11, 22],
  ];
  const pieces = points.slice(1).map((point, i) => strokeMask([points[i]!, point], 3.2, 30, 30));
  expect(equal(pieces.reduce(union), strokeMask(points, 3.2, 30, 30))).toBe(true);
});

test('outside the image, or without points, is empty', () => {
  expect(strokeMask([[-50, 10]], 5, 30, 30).area).toBe(0);
  expect(strokeMask([], 5, 30, 30).area).toBe(0);
});

test.each([0, -1, NaN, Infinity])('a radius of %d is refused', (radius) => {
  expect(() => strokeMask([[1, 1]], radius, 9, 9)).toThrow(MaskError);
});
