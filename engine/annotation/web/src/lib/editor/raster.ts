// Masks as pixels of a tile or sprite: fill, a coloured line just inside the border and a dark one just
// outside, so that masks stand out on any picture. Pure: works on arrays, knows no canvas.

import type { Mask } from '../masks';
import type { Rect } from './viewport';

/** A piece of the plane: `size` image pixels per pixel, its first pixel at (x0, y0) of the image. */
export interface Grid {
  readonly x0: number;
  readonly y0: number;
  readonly width: number;
  readonly height: number;
  readonly size: number;
}

/** Colours are 0xAABBGGRR, as ImageData has them on every machine that runs browsers today. */
export interface Style {
  readonly fill: number;
  readonly edge: number;
  readonly halo: number;
  /** Half the width over which the border is softened, in pixels of the grid; at least 1. */
  readonly reach: number;
}

export interface Shape {
  readonly mask: Mask;
  readonly style: Style;
}

export function packed(rgb: readonly [number, number, number], alpha: number): number {
  return ((Math.round(alpha * 255) << 24) | (rgb[2] << 16) | (rgb[1] << 8) | rgb[0]) >>> 0;
}

/** Draw shapes in order, the later over the earlier; returns whether anything was drawn. */
export function rasterise(pixels: Uint32Array, grid: Grid, shapes: readonly Shape[]): boolean {
  let drawn = false;
  for (const shape of shapes) drawn = rasteriseOne(pixels, grid, shape) || drawn;
  return drawn;
}

/** The grid pixels whose centres may lie in the mask's window, `around` more on each side. */
export function gridWindow(mask: Mask, grid: Grid, around: number): Rect | null {
  const first = (at: number, from: number): number => Math.ceil((at - from) / grid.size - 0.5);
  const rect = {
    x0: Math.max(0, first(mask.x0, grid.x0) - around),
    y0: Math.max(0, first(mask.y0, grid.y0) - around),
    x1: Math.min(grid.width, first(mask.x0 + mask.w, grid.x0) + around),
    y1: Math.min(grid.height, first(mask.y0 + mask.h, grid.y0) + around),
  };
  return rect.x0 < rect.x1 && rect.y0 < rect.y1 ? rect : null;
}

function rasteriseOne(pixels: Uint32Array, grid: Grid, { mask, style }: Shape): boolean {
  const { reach } = style;
  const window = mask.area === 0 ? null : gridWindow(mask, grid, reach);
  if (!window) return false;
  // The window with a border, so that lines come out the same on both sides of a tile's edge.
  const width = window.x1 - window.x0 + 2 * reach;
  const height = window.y1 - window.y0 + 2 * reach;
  const bits = sampled(mask, grid, window.x0 - reach, window.y0 - reach, width, height);
  const { inside, outside } = rampOf(style);
  const rows = rowSums(bits, width, height, reach);
  const inner = width - 2 * reach;
  const sums = new Uint16Array(inner); // set pixels in the square around each pixel of the line
  for (let y = 0; y < 2 * reach; y++) addRow(sums, rows, y * inner);
  for (let y = window.y0; y < window.y1; y++) {
    const line = y - window.y0;
    addRow(sums, rows, (line + 2 * reach) * inner);
    let at = (line + reach) * width + reach;
    let to = y * grid.width + window.x0;
    for (let x = 0; x < inner; x++, at++, to++) {
      const around = sums[x]!;
      if (around === 0) continue;
      if (bits[at]) pixels[to] = inside[around]!;
      else if (pixels[to] === 0) pixels[to] = outside[around]!;
    }
    subtractRow(sums, rows, line * inner);
  }
  return true;
}

function addRow(sums: Uint16Array, rows: Uint8Array, from: number): void {
  for (let x = 0; x < sums.length; x++) sums[x]! += rows[from + x]!;
}

function subtractRow(sums: Uint16Array, rows: Uint8Array, from: number): void {
  for (let x = 0; x < sums.length; x++) sums[x]! -= rows[from + x]!;
}

/** Per pixel of every row the set pixels up to `reach` to its left and right. */
function rowSums(bits: Uint8Array, width: number, height: number, reach: number): Uint8Array {
  const inner = width - 2 * reach;
  const sums = new Uint8Array(inner * height);
  for (let y = 0; y < height; y++) {
    const from = y * width;
    let sum = 0;
    for (let x = 0; x < 2 * reach; x++) sum += bits[from + x]!;
    for (let x = 0; x < inner; x++) {
      sum += bits[from + x + 2 * reach]!;
      sums[y * inner + x] = sum;
      sum -= bits[from + x]!;
    }
  }
  return sums;
}

interface Ramp {
  readonly inside: Uint32Array;
  readonly outside: Uint32Array;
}

const ramps = new Map<string, Ramp>();

/**
 * Colours by how many pixels around are set: along a straight border half of them are. The coloured
 * line fades into the fill, the dark one into the picture, so that stairs of pixels look like lines.
 */
function rampOf(style: Style): Ramp {
  const key = `${style.fill}/${style.edge}/${style.halo}/${style.reach}`;
  let ramp = ramps.get(key);
  if (ramp) return ramp;
  const most = (2 * style.reach + 1) ** 2;
  const inside = new Uint32Array(most + 1);
  const outside = new Uint32Array(most + 1);
  for (let around = 1; around <= most; around++) {
    const share = around / most;
    inside[around] = mixed(style.edge, style.fill, (share - 0.68) / 0.3);
    outside[around] = mixed(0, style.halo, share / 0.45);
  }
  if (ramps.size > 200) ramps.clear();
  ramps.set(key, (ramp = { inside, outside }));
  return ramp;
}

/** From colour `a` (share 0) to `b` (share 1); a colour that is not there only lends its absence. */
export function mixed(a: number, b: number, share: number): number {
  const t = Math.min(1, Math.max(0, share));
  const [alphaA, alphaB] = [a >>> 24, b >>> 24];
  const alpha = Math.round(alphaA * (1 - t) + alphaB * t);
  if (alpha === 0) return 0;
  const weight = alphaA === 0 ? 1 : alphaB === 0 ? 0 : t;
  const channel = (shift: number): number =>
    Math.round(((a >>> shift) & 255) * (1 - weight) + ((b >>> shift) & 255) * weight);
  return ((alpha << 24) | (channel(16) << 16) | (channel(8) << 8) | channel(0)) >>> 0;
}

/** The mask's bits at the centres of grid pixels. */
function sampled(
  mask: Mask,
  grid: Grid,
  x0: number,
  y0: number,
  width: number,
  height: number,
): Uint8Array {
  const bits = new Uint8Array(width * height);
  const columns = new Int32Array(width);
  for (let x = 0; x < width; x++)
    columns[x] = Math.floor(grid.x0 + (x0 + x + 0.5) * grid.size) - mask.x0;
  let from = 0;
  let end = width;
  while (from < end && columns[from]! < 0) from++;
  while (end > from && columns[end - 1]! >= mask.w) end--;
  for (let y = 0; y < height; y++) {
    const row = Math.floor(grid.y0 + (y0 + y + 0.5) * grid.size) - mask.y0;
    if (row < 0 || row >= mask.h) continue;
    const line = row * mask.w;
    const to = y * width;
    for (let x = from; x < end; x++) bits[to + x] = mask.bits[line + columns[x]!]!;
  }
  return bits;
}

/** The level whose pixels are nearest to the screen's: 2 ** level image pixels each. */
export function levelFor(devicePixelsPerImagePixel: number): number {
  const level = Math.floor(Math.log2(1 / devicePixelsPerImagePixel) + 0.5);
  return Math.min(Math.max(level, -4), 8);
}

/** How far borders are softened on a screen with so many device pixels per CSS pixel. */
export function reachFor(ratio: number): number {
  return Math.max(2, Math.round(1.6 * ratio));
}
