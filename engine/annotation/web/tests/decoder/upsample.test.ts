// Skipping what is known from signs must change no pixel: against both interpolations in full.

import { expect, test } from 'vitest';
import { maskOfLogits } from '../../src/lib/decoder/upsample';
import { frameOf, lowResSize, tighten, type Frame } from '../../src/lib/masks';
import { seeded, whole } from '../masks/samples';

/** One bilinear step along the rows (or columns) of a map, all of it, in float32. */
function interpolated(
  map: Float32Array,
  width: number,
  axis: 'x' | 'y',
  taken: number,
  made: number,
): Float32Array {
  const height = map.length / width;
  const [outWidth, outHeight] = axis === 'x' ? [made, height] : [width, made];
  const scale = Math.fround(taken / made);
  return Float32Array.from({ length: outWidth * outHeight }, (_, i) => {
    const [x, y] = [i % outWidth, Math.floor(i / outWidth)];
    const source = Math.max(0, Math.fround(scale * ((axis === 'x' ? x : y) + 0.5) - 0.5));
    const left = Math.floor(source);
    const right = Math.min(left + 1, taken - 1);
    const share = Math.fround(source - left);
    const at = (k: number): number => map[axis === 'x' ? y * width + k : k * width + x]!;
    return Math.fround(at(left) * Math.fround(1 - share)) + Math.fround(at(right) * share);
  });
}

function inFull(logits: Float32Array, frame: Frame): Uint8Array {
  const [low, { padded, input, original }] = [lowResSize(frame), frame];
  const wide = interpolated(logits, low[1], 'x', low[1], padded[1]);
  const all = interpolated(wide, padded[1], 'y', low[0], padded[0]);
  const cut = all.filter((_, i) => i % padded[1] < input[1]).slice(0, input[0] * input[1]);
  const wider = interpolated(cut, input[1], 'x', input[1], original[1]);
  const final = interpolated(wider, original[1], 'y', input[0], original[0]);
  return Uint8Array.from(final, (value) => (value > 0 ? 1 : 0));
}

test.each([
  ['larger than the input', 75, 50],
  ['much larger', 130, 200],
  ['smaller', 10, 17],
  ['of its size', 32, 32],
  ['a line', 150, 1],
])('an image %s gets every pixel of the full interpolation', (_, width, height) => {
  const frame = frameOf(width, height, 32, 16);
  const random = seeded(7);
  const [rows, columns] = lowResSize(frame);
  for (let run = 0; run < 8; run++) {
    const [reach, level] = [1 + random() * 6, random() * 1.4 - 0.7];
    const [a, b] = [random() * reach, random() * reach];
    const logits = Float32Array.from({ length: rows * columns }, (_, i) => {
      const [y, x] = [Math.floor(i / columns), i % columns];
      return Math.sin(x / reach + a) * Math.cos(y / reach + b) + level + (random() - 0.5) * 0.2;
    });
    const mask = maskOfLogits(logits, frame);
    const [found, wanted] = [whole(mask), inFull(logits, frame)];
    expect(found.findIndex((bit, i) => bit !== wanted[i])).toBe(-1);
    expect(tighten(mask)).toBe(mask);
  }
});

test('logits that are nowhere above 0 give an empty mask', () => {
  const frame = frameOf(64, 64, 64, 32);
  expect(maskOfLogits(new Float32Array(256), frame)).toMatchObject({ area: 0, w: 0 });
});

test('a peak in the padding alone gives an empty mask', () => {
  const frame = frameOf(64, 20, 64, 64);
  const logits = new Float32Array(256).fill(-1);
  logits[255] = 9;
  expect(maskOfLogits(logits, frame).area).toBe(0);
});
