// A place well inside a mask: what a person would have clicked. A mask prompt alone does not hold the
// decoder to the object; together with a click on it, it does.

import type { Mask } from './types';

/** The mask is looked at in cells, at most this many along its longer side. */
const CELLS = 96;

interface Place {
  readonly x: number;
  readonly y: number;
}

/** The centre of a set pixel far from the mask's border and from `avoid`; null for an empty mask. */
export function anchorOf(mask: Mask, avoid: readonly Place[] = []): Place | null {
  if (mask.area === 0) return null;
  const size = Math.max(1, Math.ceil(Math.max(mask.w, mask.h) / CELLS));
  const columns = Math.ceil(mask.w / size);
  const rows = Math.ceil(mask.h / size);
  const depth = depths(mask, size, columns, rows);
  let best = 0;
  let found: Place | null = null;
  for (let i = 0; i < depth.length; i++) {
    if (depth[i]! <= best) continue;
    const { x, y } = centreOf(mask, size, i % columns, Math.floor(i / columns));
    const away = avoid.map((place) => Math.hypot(place.x - x, place.y - y) / size);
    const room = Math.min(depth[i]!, ...away);
    if (room <= best) continue;
    best = room;
    found = { x, y };
  }
  return found ?? firstPixel(mask);
}

/** Distance of each cell to the nearest one whose centre is not set, in cells, by two passes. */
function depths(mask: Mask, size: number, columns: number, rows: number): Float32Array {
  const stride = columns + 2;
  const padded = new Float32Array(stride * (rows + 2)); // a border of background
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++) {
      const { x, y } = centreOf(mask, size, column, row);
      const bit = (Math.floor(y) - mask.y0) * mask.w + Math.floor(x) - mask.x0;
      padded[(row + 1) * stride + column + 1] = mask.bits[bit] ? Infinity : 0;
    }
  const pass = (i: number, sign: number): void => {
    const straight = Math.min(padded[i - sign]!, padded[i - sign * stride]!) + 1;
    const slanted = Math.min(padded[i - sign * (stride + 1)]!, padded[i - sign * (stride - 1)]!);
    padded[i] = Math.min(padded[i]!, straight, slanted + Math.SQRT2);
  };
  const [first, last] = [stride + 1, stride * (rows + 1) - 2];
  for (let i = first; i <= last; i++) if (padded[i]) pass(i, 1);
  for (let i = last; i >= first; i--) if (padded[i]) pass(i, -1);
  const inner = new Float32Array(columns * rows);
  for (let row = 0; row < rows; row++) {
    const start = (row + 1) * stride + 1;
    inner.set(padded.subarray(start, start + columns), row * columns);
  }
  return inner;
}

/** The centre of the pixel in the middle of a cell; cells at the end may be cut. */
function centreOf(mask: Mask, size: number, column: number, row: number): Place {
  const middle = (cell: number, length: number): number =>
    Math.min(cell * size + Math.floor(size / 2), length - 1) + 0.5;
  return { x: mask.x0 + middle(column, mask.w), y: mask.y0 + middle(row, mask.h) };
}

/** Masks so thin that no cell's middle is set. */
function firstPixel(mask: Mask): Place {
  const i = mask.bits.indexOf(1);
  return { x: mask.x0 + (i % mask.w) + 0.5, y: mask.y0 + Math.floor(i / mask.w) + 0.5 };
}
