// From low-resolution logits to a mask of the original image: bilinear to the padded input, cut the
// padding, bilinear to the original size, set where above 0. The arithmetic is that of
// model/upsample.py's `upsample_window`, in float32 and in its order, but only along the mask's border:
// interpolation never leaves the values it lies between, so where all low-resolution logits that
// pixels depend on agree in sign, so do the pixels.

import { emptyMask, type Frame, type Mask } from '../masks';
import { axisTaps, regionAbove, type AxisTaps, type Taps } from './taps';

/** The mask where upsampled logits are above 0. `logits` has the frame's low-resolution size. */
export function maskOfLogits(logits: Float32Array, frame: Frame): Mask {
  const [height, width] = frame.original;
  const region = regionAbove(logits, frame);
  if (!region) return emptyMask(width, height);
  const rows = axisTaps(frame, 0, region.y0, region.y1);
  const columns = axisTaps(frame, 1, region.x0, region.x1);
  const signs = signsOf(logits, rows, columns);
  const patch = toInput(logits, rows, columns, signs);
  const spans = spansAbove(patch, rows, columns, signs);
  return filled(spans, region.x0, region.y0, width, height);
}

/**
 * A grid of what is known before any interpolation. Cell (r, c) stands for the original pixels whose
 * first low-resolution neighbour is (top + r, left + c).
 */
interface Signs {
  readonly top: number;
  readonly left: number;
  readonly width: number;
  readonly height: number;
  /** 9: all logits that the cell's pixels depend on are above 0; 0: none is; else it is open. */
  readonly above: Uint8Array;
}

const ALL = 9;

function signsOf(logits: Float32Array, rows: AxisTaps, columns: AxisTaps): Signs {
  const [top, left] = [rows.low[0]!, columns.low[0]!];
  const height = rows.low[rows.low.length - 1]! + 1 - top;
  const width = columns.low[columns.low.length - 1]! + 1 - left;
  const lastX = columns.lowSize - 1;
  const lastY = rows.lowSize - 1;
  const above = new Uint8Array(height * width);
  for (let y = top; y < top + height + 2; y++) {
    const row = Math.min(y, lastY) * columns.lowSize;
    for (let c = 0; c < width; c++) {
      const x = left + c;
      const inRow =
        +(logits[row + x]! > 0) +
        +(logits[row + Math.min(x + 1, lastX)]! > 0) +
        +(logits[row + Math.min(x + 2, lastX)]! > 0);
      for (let r = Math.max(0, y - top - 2); r <= y - top && r < height; r++)
        above[r * width + c]! += inRow;
    }
  }
  return { top, left, width, height, above };
}

function isOpen(signs: Signs, r: number, c: number): boolean {
  if (r < 0 || c < 0 || r >= signs.height || c >= signs.width) return false;
  const above = signs.above[r * signs.width + c]!;
  return above > 0 && above < ALL;
}

/** The logits of the padded input wherever an open cell reads them, columns first, then rows. */
function toInput(
  logits: Float32Array,
  rows: AxisTaps,
  columns: AxisTaps,
  signs: Signs,
): Float32Array {
  const { left, right, weightLeft, weightRight } = columns.toInput;
  const taps = rows.toInput;
  const starts = startsOf(left, signs.left, signs.width + 1);
  const patch = new Float32Array(taps.left.length * left.length);
  let runs: number[] = [];
  for (let y = 0; y < taps.left.length; y++) {
    const r = taps.left[y]! - signs.top;
    if (y === 0 || taps.left[y] !== taps.left[y - 1]) runs = neededRuns(signs, r, starts);
    const upper = taps.left[y]! * columns.lowSize;
    const lower = taps.right[y]! * columns.lowSize;
    const weightUpper = taps.weightLeft[y]!;
    const weightLower = taps.weightRight[y]!;
    for (let i = 0; i < runs.length; i += 2)
      for (let x = runs[i]!; x < runs[i + 1]!; x++) {
        const l = left[x]!;
        const k = right[x]!;
        const wl = weightLeft[x]!;
        const wr = weightRight[x]!;
        const high = blend(logits[upper + l]!, wl, logits[upper + k]!, wr);
        const low = blend(logits[lower + l]!, wl, logits[lower + k]!, wr);
        patch[y * left.length + x] = blend(high, weightUpper, low, weightLower);
      }
  }
  return patch;
}

/** One step of an interpolation, rounded as float32 arithmetic rounds. */
function blend(a: number, weightA: number, b: number, weightB: number): number {
  return Math.fround(Math.fround(a * weightA) + Math.fround(b * weightB));
}

/** Flat pairs (from, to) of input columns that open cells read in input rows of grid row r. */
function neededRuns(signs: Signs, r: number, starts: Int32Array): number[] {
  const runs: number[] = [];
  // A pixel reads two input pixels along each axis; the second may lie in the next cell, which may
  // be one beyond the grid.
  const open = (c: number): boolean => isOpen(signs, r, c) || isOpen(signs, r - 1, c);
  let before = false;
  for (let c = 0; c <= signs.width; c++) {
    const here = open(c);
    if (here || before) {
      if (runs[runs.length - 1] === starts[c]) runs[runs.length - 1] = starts[c + 1]!;
      else runs.push(starts[c]!, starts[c + 1]!);
    }
    before = here;
  }
  return runs;
}

/** Flat triples (y, from, to) of pixels in a row that are set, counted from the region's corner. */
type Spans = readonly number[];

/** Interpolate the patch to its final size: where it is above 0. */
function spansAbove(patch: Float32Array, rows: AxisTaps, columns: AxisTaps, signs: Signs): Spans {
  const stride = columns.toInput.left.length;
  const starts = startsOf(columns.low, signs.left, signs.width);
  const cells = startsOf(columns.toOriginal.left, 0, stride);
  const { left, right, weightLeft, weightRight } = rows.toOriginal;
  const spans: number[] = [];
  let coarse: Runs = [];
  let runs: Runs = [];
  for (let y = 0; y < left.length; y++) {
    const upper = left[y]! * stride;
    const lower = right[y]! * stride;
    if (y === 0 || rows.low[y] !== rows.low[y - 1])
      coarse = signRuns(signs, rows.low[y]! - signs.top, starts);
    if (y === 0 || left[y] !== left[y - 1])
      runs = refined(coarse, patch, upper, lower, columns.toOriginal.left, cells);
    const pair = { upper, lower, weightUpper: weightLeft[y]!, weightLower: weightRight[y]! };
    for (let i = 0; i < runs.length; i += 3) {
      const from = runs[i + 1]!;
      const to = runs[i + 2]!;
      if (runs[i] === SET) spans.push(y, from, to);
      else blendRun(patch, pair, columns.toOriginal, y, from, to, spans);
    }
  }
  return spans;
}

/** Flat triples (SET or OPEN, from, to) of original columns; the others are not set. */
type Runs = readonly number[];

const SET = 1;
const OPEN = 0;
const CLEAR = -1;

/** What the grid says about the columns in its row r. */
function signRuns(signs: Signs, r: number, starts: Int32Array): Runs {
  const runs: number[] = [];
  for (let c = 0; c < signs.width; c++) {
    const above = signs.above[r * signs.width + c]!;
    add(runs, above === ALL ? SET : above === 0 ? CLEAR : OPEN, starts[c]!, starts[c + 1]!);
  }
  return runs;
}

/** What is still open once the patch is known: the columns between input pixels of both signs. */
function refined(
  coarse: Runs,
  patch: Float32Array,
  upper: number,
  lower: number,
  left: Int32Array,
  cells: Int32Array,
): Runs {
  const runs: number[] = [];
  const last = cells.length - 2;
  for (let k = 0; k < coarse.length; k += 3) {
    const [kind, from, to] = [coarse[k]!, coarse[k + 1]!, coarse[k + 2]!];
    if (kind !== OPEN) {
      add(runs, kind, from, to);
      continue;
    }
    for (let i = left[from]!; i <= left[to - 1]!; i++) {
      const next = Math.min(i + 1, last);
      const above =
        +(patch[upper + i]! > 0) +
        +(patch[upper + next]! > 0) +
        +(patch[lower + i]! > 0) +
        +(patch[lower + next]! > 0);
      const sign = above === 4 ? SET : above === 0 ? CLEAR : OPEN;
      add(runs, sign, Math.max(from, cells[i]!), Math.min(to, cells[i + 1]!));
    }
  }
  return runs;
}

/** Append a run, or lengthen the last one of its kind that ends where it begins. */
function add(runs: number[], kind: number, from: number, to: number): void {
  if (kind === CLEAR || from >= to) return;
  const end = runs.length - 1;
  if (runs[end] === from && runs[end - 2] === kind) runs[end] = to;
  else runs.push(kind, from, to);
}

/** Two rows of the patch and their weights. */
interface RowPair {
  readonly upper: number;
  readonly lower: number;
  readonly weightUpper: number;
  readonly weightLower: number;
}

function blendRun(
  patch: Float32Array,
  { upper, lower, weightUpper, weightLower }: RowPair,
  columns: Taps,
  y: number,
  from: number,
  to: number,
  spans: number[],
): void {
  let start = -1; // of the span that grows
  for (let x = from; x < to; x++) {
    const l = columns.left[x]!;
    const r = columns.right[x]!;
    const wl = columns.weightLeft[x]!;
    const wr = columns.weightRight[x]!;
    const high = blend(patch[upper + l]!, wl, patch[upper + r]!, wr);
    const low = blend(patch[lower + l]!, wl, patch[lower + r]!, wr);
    const above = blend(high, weightUpper, low, weightLower) > 0;
    if (above === start >= 0) continue;
    if (!above) spans.push(y, start, x);
    start = above ? x : -1;
  }
  if (start >= 0) spans.push(y, start, to);
}

/** Where in a run of ascending indices each of `count` values from `first` on begins; and the end. */
function startsOf(indices: Int32Array, first: number, count: number): Int32Array {
  const starts = new Int32Array(count + 1).fill(indices.length);
  for (let i = indices.length - 1; i >= 0; i--)
    if (indices[i]! - first < count) starts[indices[i]! - first] = i;
  for (let c = count - 1; c >= 0; c--) starts[c] = Math.min(starts[c]!, starts[c + 1]!);
  return starts;
}

function filled(spans: Spans, x0: number, y0: number, width: number, height: number): Mask {
  let [left, right, area] = [width, 0, 0];
  for (let i = 0; i < spans.length; i += 3) {
    const from = spans[i + 1]!;
    const to = spans[i + 2]!;
    if (from < left) left = from;
    if (to > right) right = to;
    area += to - from;
  }
  if (area === 0) return emptyMask(width, height);
  const top = spans[0]!;
  const [w, h] = [right - left, spans[spans.length - 3]! + 1 - top];
  const bits = new Uint8Array(w * h);
  for (let i = 0; i < spans.length; i += 3) {
    const row = (spans[i]! - top) * w - left;
    bits.fill(1, row + spans[i + 1]!, row + spans[i + 2]!);
  }
  return { width, height, x0: x0 + left, y0: y0 + top, w, h, bits, area };
}
