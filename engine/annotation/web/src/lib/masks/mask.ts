// Windows of bits and what is done with two of them. Work is in proportion to the windows, never to
// the image; results have the smallest window that holds them.

import { MaskError, type Mask, type Region } from './types';

const NOTHING = new Uint8Array(0);

/** A mask without a pixel, of an image of width x height. */
export function emptyMask(width: number, height: number): Mask {
  return { width, height, x0: 0, y0: 0, w: 0, h: 0, bits: NOTHING, area: 0 };
}

/**
 * The mask whose window has these bits (0 or 1, row by row), its window cut to what is set.
 * The bits become the mask's: don't change them afterwards.
 */
export function maskOfBits(
  width: number,
  height: number,
  x0: number,
  y0: number,
  w: number,
  h: number,
  bits: Uint8Array,
): Mask {
  if (bits.length !== w * h || x0 < 0 || y0 < 0 || x0 + w > width || y0 + h > height)
    throw new MaskError(
      `a window of ${w}x${h} at (${x0}, ${y0}) with ${bits.length} bits does not fit ${width}x${height}`,
    );
  return tighten({ width, height, x0, y0, w, h, bits, area: countSet(bits) });
}

/** The same mask in the smallest window; the mask itself when it is tight already. */
export function tighten(mask: Mask): Mask {
  if (mask.area === 0) return mask.w === 0 ? mask : emptyMask(mask.width, mask.height);
  const { w, h, bits } = mask;
  const first = bits.indexOf(1);
  const last = bits.lastIndexOf(1);
  const top = Math.floor(first / w);
  const bottom = Math.floor(last / w) + 1;
  let left = first - top * w;
  let right = last - (bottom - 1) * w + 1;
  for (let y = top; y < bottom && (left > 0 || right < w); y++) {
    const row = y * w;
    for (let x = 0; x < left; x++) if (bits[row + x]) left = x;
    for (let x = w - 1; x >= right; x--) if (bits[row + x]) right = x + 1;
  }
  if (top === 0 && left === 0 && bottom === h && right === w) return mask;
  const region = {
    x0: mask.x0 + left,
    y0: mask.y0 + top,
    x1: mask.x0 + right,
    y1: mask.y0 + bottom,
  };
  return windowed(mask, region, bitsIn(mask, region), mask.area);
}

/** Whether pixel (x, y) is set; coordinates may have fractions. */
export function contains(mask: Mask, x: number, y: number): boolean {
  const column = Math.floor(x) - mask.x0;
  const row = Math.floor(y) - mask.y0;
  if (column < 0 || row < 0 || column >= mask.w || row >= mask.h) return false;
  return mask.bits[row * mask.w + column] === 1;
}

/** Pixels of either. */
export function union(a: Mask, b: Mask): Mask {
  checkSameImage(a, b);
  if (a.area === 0) return tighten(b);
  if (b.area === 0) return tighten(a);
  const region = hull(a, b);
  const bits = bitsIn(a, region);
  let area = a.area;
  forRows(b, region, (from, to, length) => {
    for (let i = 0; i < length; i++)
      if (b.bits[from + i] && !bits[to + i]) {
        bits[to + i] = 1;
        area++;
      }
  });
  return tighten(windowed(a, region, bits, area));
}

/** Pixels of `a` that are not in `b`. */
export function subtract(a: Mask, b: Mask): Mask {
  checkSameImage(a, b);
  if (!overlap(a, b)) return tighten(a);
  const region = regionOf(a);
  const bits = a.bits.slice();
  let area = a.area;
  forRows(b, region, (from, to, length) => {
    for (let i = 0; i < length; i++)
      if (b.bits[from + i] && bits[to + i]) {
        bits[to + i] = 0;
        area--;
      }
  });
  return tighten(windowed(a, region, bits, area));
}

/** Pixels of both. */
export function intersect(a: Mask, b: Mask): Mask {
  checkSameImage(a, b);
  const region = overlap(a, b);
  if (!region) return emptyMask(a.width, a.height);
  const bits = bitsIn(a, region);
  let area = 0;
  forRows(b, region, (from, to, length) => {
    for (let i = 0; i < length; i++) area += bits[to + i]! &= b.bits[from + i]!;
  });
  return tighten(windowed(a, region, bits, area));
}

/** Intersection over union; two empty masks have 0. */
export function iou(a: Mask, b: Mask): number {
  const both = intersect(a, b).area;
  return both === 0 ? 0 : both / (a.area + b.area - both);
}

/** Whether both have the same pixels of images of the same size, whatever their windows. */
export function equal(a: Mask, b: Mask): boolean {
  if (a.width !== b.width || a.height !== b.height || a.area !== b.area) return false;
  const s = tighten(a);
  const t = tighten(b);
  if (s.x0 !== t.x0 || s.y0 !== t.y0 || s.w !== t.w || s.h !== t.h) return false;
  for (let i = 0; i < s.bits.length; i++) if (s.bits[i] !== t.bits[i]) return false;
  return true;
}

function countSet(bits: Uint8Array): number {
  let area = 0;
  for (let i = 0; i < bits.length; i++) area += bits[i]!;
  return area;
}

function checkSameImage(a: Mask, b: Mask): void {
  if (a.width !== b.width || a.height !== b.height)
    throw new MaskError(
      `masks of one image expected; got ${a.width}x${a.height} and ${b.width}x${b.height}`,
    );
}

function regionOf(mask: Mask): Region {
  return { x0: mask.x0, y0: mask.y0, x1: mask.x0 + mask.w, y1: mask.y0 + mask.h };
}

function hull(a: Mask, b: Mask): Region {
  return {
    x0: Math.min(a.x0, b.x0),
    y0: Math.min(a.y0, b.y0),
    x1: Math.max(a.x0 + a.w, b.x0 + b.w),
    y1: Math.max(a.y0 + a.h, b.y0 + b.h),
  };
}

function overlap(a: Mask, b: Mask): Region | null {
  const x0 = Math.max(a.x0, b.x0);
  const y0 = Math.max(a.y0, b.y0);
  const x1 = Math.min(a.x0 + a.w, b.x0 + b.w);
  const y1 = Math.min(a.y0 + a.h, b.y0 + b.h);
  return x0 < x1 && y0 < y1 ? { x0, y0, x1, y1 } : null;
}

function windowed(image: Mask, region: Region, bits: Uint8Array, area: number): Mask {
  const { x0, y0, x1, y1 } = region;
  return { width: image.width, height: image.height, x0, y0, w: x1 - x0, h: y1 - y0, bits, area };
}

/** The bits of a region, a copy. */
function bitsIn(mask: Mask, region: Region): Uint8Array<ArrayBuffer> {
  const bits = new Uint8Array((region.x1 - region.x0) * (region.y1 - region.y0));
  forRows(mask, region, (from, to, length) => {
    bits.set(mask.bits.subarray(from, from + length), to);
  });
  return bits;
}

/** Visit the rows that a mask shares with a region: offsets in the mask's bits and the region's. */
function forRows(
  mask: Mask,
  region: Region,
  visit: (from: number, to: number, length: number) => void,
): void {
  const x0 = Math.max(mask.x0, region.x0);
  const length = Math.min(mask.x0 + mask.w, region.x1) - x0;
  const y1 = Math.min(mask.y0 + mask.h, region.y1);
  if (length <= 0) return;
  for (let y = Math.max(mask.y0, region.y0); y < y1; y++)
    visit(
      (y - mask.y0) * mask.w + x0 - mask.x0,
      (y - region.y0) * (region.x1 - region.x0) + x0 - region.x0,
      length,
    );
}
