// Many masks for trying the editor under load: wobbly blobs, the same for the same seed.

import { maskOfBits, toRle, type Mask } from '../../../src/lib/masks';
import type { Obj } from '../../../src/lib/types';

export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** A blob with a wavy border around (cx, cy). */
export function blob(
  width: number,
  height: number,
  cx: number,
  cy: number,
  radius: number,
  random: () => number,
): Mask {
  const waves = [2, 3, 5].map((count) => ({ count, phase: random() * 7, size: random() * 0.14 }));
  const x0 = Math.max(0, Math.floor(cx - radius * 1.5));
  const y0 = Math.max(0, Math.floor(cy - radius * 1.5));
  const w = Math.min(width, Math.ceil(cx + radius * 1.5)) - x0;
  const h = Math.min(height, Math.ceil(cy + radius * 1.5)) - y0;
  const bits = new Uint8Array(w * h);
  for (let y = 0; y < h; y++)
    for (let x = 0; x < w; x++) {
      const [dx, dy] = [x0 + x - cx, y0 + y - cy];
      const angle = Math.atan2(dy, dx);
      const wobble = waves.reduce(
        (sum, one) => sum + one.size * Math.sin(one.count * angle + one.phase),
        1,
      );
      if (Math.hypot(dx, dy) < radius * wobble) bits[y * w + x] = 1;
    }
  return maskOfBits(width, height, x0, y0, w, h, bits);
}

export function blobs(count: number, width: number, height: number, seed = 7): Obj[] {
  const random = seeded(seed);
  const unit = Math.sqrt((width * height) / Math.max(1, count));
  return Array.from({ length: count }, (_, at) => {
    const radius = unit * (0.12 + 0.55 * random() ** 2);
    const [x, y] = [random() * width, random() * height];
    return {
      id: `proposal-${at + 1}`,
      proposal: true,
      rle: toRle(blob(width, height, x, y, radius, random)),
      predicted_iou: 0.7 + 0.29 * random(),
      prompts: [{ kind: 'point' as const, x, y, label: 1 as const }],
      decoder: 'server' as const,
      accepted: null,
    };
  });
}
