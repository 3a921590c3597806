// Seeded masks for tests, whole images drawn as text, and slow but obvious counterparts.

import { maskOfBits, type Mask } from '../../src/lib/masks';

/** Numbers in [0, 1) that are the same in every run (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A mask from rows of text: `#` is set. */
export function drawn(...rows: string[]): Mask {
  const width = rows[0]?.length ?? 0;
  const bits = Uint8Array.from(rows.join(''), (c) => (c === '#' ? 1 : 0));
  return maskOfBits(width, rows.length, 0, 0, width, rows.length, bits);
}

/** A random mask: noise of some density in a random window. */
export function randomMask(random: () => number, width: number, height: number): Mask {
  const x0 = Math.floor(random() * width);
  const y0 = Math.floor(random() * height);
  const w = 1 + Math.floor(random() * (width - x0));
  const h = 1 + Math.floor(random() * (height - y0));
  const density = random() ** 2 * 1.1;
  const bits = Uint8Array.from({ length: w * h }, () => (random() < density ? 1 : 0));
  return maskOfBits(width, height, x0, y0, w, h, bits);
}

/** All bits of the image, row by row. */
export function whole(mask: Mask): Uint8Array {
  const bits = new Uint8Array(mask.width * mask.height);
  for (let y = 0; y < mask.h; y++)
    bits.set(
      mask.bits.subarray(y * mask.w, (y + 1) * mask.w),
      (mask.y0 + y) * mask.width + mask.x0,
    );
  return bits;
}

/** The mask as text. */
export function text(mask: Mask): string[] {
  const bits = whole(mask);
  return Array.from({ length: mask.height }, (_, y) =>
    Array.from(bits.subarray(y * mask.width, (y + 1) * mask.width), (bit) => '.#'[bit]).join(''),
  );
}

/** A wobbly blob, as annotations are. */
export function blob(
  width: number,
  height: number,
  centreX: number,
  centreY: number,
  radius: number,
): Mask {
  const x0 = Math.max(0, Math.floor(centreX - radius * 1.3));
  const y0 = Math.max(0, Math.floor(centreY - radius * 1.3));
  const w = Math.min(width, Math.ceil(centreX + radius * 1.3)) - x0;
  const h = Math.min(height, Math.ceil(centreY + radius * 1.3)) - y0;
  const bits = new Uint8Array(w * h);
  for (let y = 0; y < h; y++)
    for (let x = 0; x < w; x++) {
      const [dx, dy] = [x0 + x - centreX, y0 + y - centreY];
      const angle = Math.atan2(dy, dx);
      const edge = radius * (1 + 0.2 * Math.sin(7 * angle) + 0.02 * Math.sin(60 * angle));
      bits[y * w + x] = Math.hypot(dx, dy) < edge ? 1 : 0;
    }
  return maskOfBits(width, height, x0, y0, w, h, bits);
}
