// The two bilinear interpolations of an axis, from low-resolution logits to the padded input and from
// there to the original image: which neighbours with which weights, as model/upsample.py has them.

import { LOW_RES_STRIDE, type Frame, type Region } from '../masks';

/** One linear interpolation along an axis: two neighbours and their weights for each output. */
export interface Taps {
  readonly left: Int32Array;
  readonly right: Int32Array;
  readonly weightLeft: Float32Array;
  readonly weightRight: Float32Array;
}

/** Both interpolations on a span of the original image. */
export interface AxisTaps {
  /** Low resolution to input, from the first input pixel that `toOriginal` reads to the last. */
  readonly toInput: Taps;
  /** Input to original; neighbours count from the first input pixel of `toInput`. */
  readonly toOriginal: Taps;
  /** How many low-resolution pixels there are along the axis. */
  readonly lowSize: number;
  /** For each original pixel the first of the at most three low-resolution ones that it depends on. */
  readonly low: Int32Array;
}

export function axisTaps(frame: Frame, axis: 0 | 1, start: number, stop: number): AxisTaps {
  const [padded, input, original] = [frame.padded[axis], frame.input[axis], frame.original[axis]];
  const toOriginal = linearTaps(input, original, start, stop);
  const from = toOriginal.left[0]!;
  const to = toOriginal.right[toOriginal.right.length - 1]! + 1;
  for (const side of [toOriginal.left, toOriginal.right])
    for (let i = 0; i < side.length; i++) side[i]! -= from;
  const lowSize = padded / LOW_RES_STRIDE;
  const toInput = linearTaps(lowSize, padded, from, to);
  return { toInput, toOriginal, lowSize, low: toOriginal.left.map((i) => toInput.left[i]!) };
}

/** Bilinear weights without aligned corners, as torch computes them in float32. */
function linearTaps(inSize: number, outSize: number, start: number, stop: number): Taps {
  const count = stop - start;
  const left = new Int32Array(count);
  const right = new Int32Array(count);
  const weightLeft = new Float32Array(count);
  const weightRight = new Float32Array(count);
  const scale = Math.fround(inSize / outSize);
  for (let i = 0; i < count; i++) {
    const source = Math.max(0, Math.fround(scale * (start + i + 0.5) - 0.5));
    left[i] = Math.min(Math.floor(source), inSize - 1);
    right[i] = Math.min(left[i]! + 1, inSize - 1);
    weightRight[i] = Math.min(1, Math.max(0, source - left[i]!));
    weightLeft[i] = 1 - weightRight[i]!;
  }
  return { left, right, weightLeft, weightRight };
}

/** Bound where upsampled logits can be above 0, or null where they cannot. */
export function regionAbove(logits: Float32Array, frame: Frame): Region | null {
  const width = frame.padded[1] / LOW_RES_STRIDE;
  const height = frame.padded[0] / LOW_RES_STRIDE;
  let [left, right, top, bottom] = [width, -1, height, -1];
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      if (logits[y * width + x]! > 0) {
        if (x < left) left = x;
        if (x > right) right = x;
        if (y < top) top = y;
        bottom = y;
      }
  if (bottom < 0) return null;
  const [y0, y1] = originalSpan(top, bottom, frame, 0);
  const [x0, x1] = originalSpan(left, right, frame, 1);
  return y0 < y1 && x0 < x1 ? { x0, y0, x1, y1 } : null;
}

/** Map low-resolution indices first..last to a span of original pixels, generously. */
function originalSpan(first: number, last: number, frame: Frame, axis: 0 | 1): [number, number] {
  const scale = frame.input[axis] / frame.original[axis];
  const from = Math.max(0, (first - 1) * LOW_RES_STRIDE);
  const to = Math.min(frame.input[axis] - 1, (last + 2) * LOW_RES_STRIDE);
  if (from > to) return [0, 0]; // only padding is hit
  const start = Math.trunc((from - 1) / scale) - 1;
  const end = Math.trunc((to + 2) / scale) + 2;
  return [Math.max(0, start), Math.min(frame.original[axis], end)];
}
