// COCO's compressed RLE, byte for byte what pycocotools writes: runs down the columns of the whole
// image, background first, from the fourth count on as the difference to the one before last, in
// groups of five bits. Bits are read and written row by row, since a column of a large window
// touches another cache line with every pixel.

import { emptyMask } from './mask';
import { MaskError, type Mask, type Rle } from './types';
import { forDifferences, toggleDown } from './words';

const MOST_PIXELS = 2 ** 31 - 1;

/** Encode a mask. */
export function toRle(mask: Mask): Rle {
  const { width, height } = mask;
  return { size: [height, width], counts: compress(toggles(mask), width * height) };
}

/**
 * Decode a mask into the smallest window.
 * Throws MaskError when the counts are not COCO's or do not fill the size.
 */
export function fromRle(rle: Rle): Mask {
  const [height, width] = rle.size;
  const pixels = width * height;
  if (!(width > 0 && height > 0 && pixels <= MOST_PIXELS))
    throw new MaskError(
      `an RLE of an image of 1 to ${MOST_PIXELS} pixels expected; got ${rle.size}`,
    );
  const runs = expand(rle.counts, pixels);
  const frame = bounds(runs, height);
  if (!frame) return emptyMask(width, height);
  const { x0, y0, w, h, area } = frame;
  const bits = new Uint8Array(w * h);
  forColumnPieces(runs, height, (x, from, to) => {
    bits[(from - y0) * w + x - x0]! ^= 1;
    if (to < y0 + h) bits[(to - y0) * w + x - x0]! ^= 1;
  });
  toggleDown(bits, w);
  return { width, height, x0, y0, w, h, bits, area };
}

/** Positions, down the columns of the image, where background and mask change; ascending. */
function toggles(mask: Mask): Float64Array {
  const { w, h, bits, height } = mask;
  const found: number[] = []; // y * w + x, row by row
  const add = (at: number): void => void found.push(at);
  for (let x = 0; x < w; x++) if (bits[x]) add(x);
  forDifferences(bits, w, add);
  for (let x = 0; x < w; x++) if (bits[(h - 1) * w + x]) add(h * w + x);
  // Sorted by column, which keeps the rows of each in order.
  const next = new Uint32Array(w + 1);
  for (const at of found) next[(at % w) + 1]!++;
  for (let x = 0; x < w; x++) next[x + 1]! += next[x]!;
  const positions = new Float64Array(found.length);
  for (const at of found) {
    const x = at % w;
    positions[next[x]!++] = (mask.x0 + x) * height + mask.y0 + (at - x) / w;
  }
  return positions;
}

function compress(positions: Float64Array, pixels: number): string {
  const text = new TextBuffer(positions.length * 2 + 8);
  let start = 0; // of the current run
  let last = 0; // the two runs before it
  let beforeLast = 0;
  let written = 0;
  const write = (end: number): void => {
    const run = end - start;
    text.number(written > 2 ? run - beforeLast : run);
    beforeLast = last;
    last = run;
    start = end;
    written++;
  };
  for (let i = 0; i < positions.length; i++) {
    const at = positions[i]!;
    if (at === positions[i + 1])
      i++; // the mask goes on at the top of the next column
    else if (at < pixels) write(at);
  }
  write(pixels);
  return text.read();
}

/** Characters that grow as needed; faster than joining strings. */
class TextBuffer {
  private length = 0;
  private bytes: Uint8Array<ArrayBuffer>;

  constructor(capacity: number) {
    this.bytes = new Uint8Array(capacity);
  }

  number(value: number): void {
    if (this.length + 8 > this.bytes.length) {
      const larger = new Uint8Array(this.bytes.length * 2 + 8);
      larger.set(this.bytes);
      this.bytes = larger;
    }
    for (let rest = value, more = true; more;) {
      const group = rest & 0x1f;
      rest >>= 5;
      more = group & 0x10 ? rest !== -1 : rest !== 0;
      this.bytes[this.length++] = (more ? group | 0x20 : group) + 48;
    }
  }

  read(): string {
    return new TextDecoder().decode(this.bytes.subarray(0, this.length));
  }
}

/** Read the run lengths; they must add up to the image. */
function expand(counts: string, pixels: number): number[] {
  const runs: number[] = [];
  let total = 0;
  for (let at = 0; at < counts.length;) {
    let value = 0;
    let group = 0;
    let shift = 0;
    do {
      group = counts.charCodeAt(at++) - 48;
      if (!(group >= 0 && group < 64) || shift > 30)
        throw new MaskError(`character ${at} of the RLE's counts is not one of COCO's`);
      value |= (group & 0x1f) << shift;
      shift += 5;
    } while (group & 0x20);
    if (group & 0x10 && shift < 32) value |= -1 << shift;
    if (runs.length > 2) value += runs[runs.length - 2]!;
    if (value < 0) throw new MaskError(`run ${runs.length} of the RLE is negative`);
    runs.push(value);
    total += value;
  }
  if (total !== pixels) throw new MaskError(`the RLE's runs hold ${total} of ${pixels} pixels`);
  return runs;
}

function bounds(
  runs: readonly number[],
  height: number,
): { x0: number; y0: number; w: number; h: number; area: number } | null {
  let [x0, y0, x1, y1, area] = [Infinity, Infinity, 0, 0, 0];
  forColumnPieces(runs, height, (x, from, to) => {
    x0 = Math.min(x0, x);
    x1 = x + 1;
    y0 = Math.min(y0, from);
    y1 = Math.max(y1, to);
    area += to - from;
  });
  return area === 0 ? null : { x0, y0, w: x1 - x0, h: y1 - y0, area };
}

/** Visit the mask's runs, cut where a column ends: column x, rows from..to. */
function forColumnPieces(
  runs: readonly number[],
  height: number,
  visit: (x: number, from: number, to: number) => void,
): void {
  let at = 0;
  for (let i = 0; i < runs.length; i++) {
    const end = at + runs[i]!;
    for (; i % 2 === 1 && at < end;) {
      const x = Math.floor(at / height);
      const to = Math.min(end, (x + 1) * height);
      visit(x, at - x * height, to - x * height);
      at = to;
    }
    at = end;
  }
}
