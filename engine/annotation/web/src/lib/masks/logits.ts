// Any mask as a mask prompt: the share of each low-resolution cell that it covers, as soft logits, so
// that further clicks correct a mask that the decoder never made.

import { inputScale, lowResSize, LOW_RES_STRIDE, type Frame } from './frame';
import { MaskError, type Mask } from './types';

/** Logit of a cell that is wholly inside; wholly outside it is the negative. */
const SURE = 8;

/** Low-resolution logits (h * w, row by row) of a mask in the decoder's frame. */
export function maskToLogits(mask: Mask, frame: Frame): Float32Array<ArrayBuffer> {
  const [height, width] = lowResSize(frame);
  if (mask.width !== frame.original[1] || mask.height !== frame.original[0])
    throw new MaskError(
      `a mask of ${frame.original[1]}x${frame.original[0]} expected; got ${mask.width}x${mask.height}`,
    );
  const logits = new Float32Array(width * height).fill(-SURE);
  const [scaleX, scaleY] = inputScale(frame);
  const columns = cellsOver(mask.x0, mask.w, LOW_RES_STRIDE / scaleX, width);
  const rows = cellsOver(mask.y0, mask.h, LOW_RES_STRIDE / scaleY, height);
  const perPixel = (2 * SURE * scaleX * scaleY) / LOW_RES_STRIDE ** 2;
  const column = new Float64Array(mask.w); // of the cell row at hand: set pixels, weighted
  for (const row of rows) {
    column.fill(0);
    for (let y = row.first; y < row.last; y++) {
      const weight = weightOf(row, y) * perPixel;
      const at = y * mask.w;
      for (let x = 0; x < mask.w; x++) column[x]! += weight * mask.bits[at + x]!;
    }
    for (const cell of columns) {
      let sum = 0;
      for (let x = cell.first; x < cell.last; x++) sum += weightOf(cell, x) * column[x]!;
      logits[row.index * width + cell.index]! += sum;
    }
  }
  return logits;
}

/** The part of a cell that a window covers, in pixels of the window: from..to lies in first..last. */
interface Cell {
  readonly index: number;
  readonly from: number;
  readonly to: number;
  readonly first: number;
  readonly last: number;
}

/** The cells that a window of `length` pixels from `start` touches; a cell is `size` pixels long. */
function cellsOver(start: number, length: number, size: number, count: number): Cell[] {
  const cells: Cell[] = [];
  for (let index = Math.floor(start / size); index < count; index++) {
    const from = Math.max(0, index * size - start);
    const to = Math.min(length, (index + 1) * size - start);
    if (from >= length) break;
    if (from >= to) continue; // rounding: the window starts where this cell ends
    cells.push({ index, from, to, first: Math.floor(from), last: Math.ceil(to) });
  }
  return cells;
}

/** How much of pixel `at` lies in the cell. */
function weightOf(cell: Cell, at: number): number {
  return Math.min(cell.to, at + 1) - Math.max(cell.from, at);
}
