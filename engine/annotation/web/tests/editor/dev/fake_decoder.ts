// A decoder for the development page: regions of similar colour around the points. It stands in for the
// model's behaviour (three candidates, refinement, a box), not for its quality.

import { frameOf, maskOfBits, type Mask } from '../../../src/lib/masks';
import type { Answer, Decoder, DecoderPrompts, Prepared } from '../../../src/lib/decoder';

export interface FakeSettings {
  /** How long an answer takes. */
  readonly milliseconds: number;
  readonly fails: boolean;
}

const TOLERANCES = [26, 44, 16];
const SHORT_SIDE = 480;

export function fakeDecoder(
  pixels: ImageBitmap,
  width: number,
  height: number,
  settings: FakeSettings,
): Decoder {
  const shrink = Math.min(1, SHORT_SIDE / Math.min(width, height));
  const [w, h] = [Math.round(width * shrink), Math.round(height * shrink)];
  const context = new OffscreenCanvas(w, h).getContext('2d')!;
  context.drawImage(pixels, 0, 0, w, h);
  const { data } = context.getImageData(0, 0, w, h);

  function region(prompts: DecoderPrompts, tolerance: number): Uint8Array {
    const bits = new Uint8Array(w * h);
    const box = prompts.box?.map((at) => at * shrink) ?? null;
    const seeds = prompts.points.filter(({ label }) => label === 1);
    const starts = seeds.map(({ x, y }) => [x * shrink, y * shrink] as const);
    if (box && starts.length === 0) starts.push([(box[0]! + box[2]!) / 2, (box[1]! + box[3]!) / 2]);
    const against = prompts.points.filter(({ label }) => label === 0);
    for (const [sx, sy] of starts) {
      const start = Math.floor(sy) * w + Math.floor(sx);
      const stack = [start];
      const [r, g, b] = [data[4 * start]!, data[4 * start + 1]!, data[4 * start + 2]!];
      const seen = new Uint8Array(w * h);
      while (stack.length > 0) {
        const at = stack.pop()!;
        if (seen[at]) continue;
        seen[at] = 1;
        const [x, y] = [at % w, Math.floor(at / w)];
        if (box && (x < box[0]! || y < box[1]! || x >= box[2]! || y >= box[3]!)) continue;
        if (against.some((one) => Math.hypot(one.x * shrink - x, one.y * shrink - y) < 22))
          continue;
        const far =
          Math.abs(data[4 * at]! - r) +
          Math.abs(data[4 * at + 1]! - g) +
          Math.abs(data[4 * at + 2]! - b);
        if (far > tolerance * 3) continue;
        bits[at] = 1;
        if (x > 0) stack.push(at - 1);
        if (x < w - 1) stack.push(at + 1);
        if (y > 0) stack.push(at - w);
        if (y < h - 1) stack.push(at + w);
      }
    }
    return bits;
  }

  function grown(bits: Uint8Array): Mask {
    const full = new Uint8Array(width * height);
    for (let y = 0; y < height; y++) {
      const row = Math.min(h - 1, Math.floor(y * shrink)) * w;
      for (let x = 0; x < width; x++)
        full[y * width + x] = bits[row + Math.min(w - 1, Math.floor(x * shrink))]!;
    }
    return maskOfBits(width, height, 0, 0, width, height, full);
  }

  async function decode(_prepared: Prepared, prompts: DecoderPrompts): Promise<Answer> {
    const began = performance.now();
    await new Promise((done) => setTimeout(done, settings.milliseconds));
    if (settings.fails) throw new Error('the network is away');
    const single = prompts.points.length === 1 && !prompts.box && !prompts.mask;
    const candidates = (single ? TOLERANCES : TOLERANCES.slice(0, 1)).map((tolerance, at) => ({
      mask: grown(region(prompts, tolerance)),
      iou: 0.91 - 0.13 * at,
      logits: new Float32Array(64 * 64),
    }));
    return { candidates, best: 0, milliseconds: performance.now() - began };
  }

  return {
    kind: 'browser',
    threads: 1,
    prepare: async (task) => ({ task, frame: frameOf(width, height, 1024, 32) }),
    decode,
    preview: decode,
    prefetch: async () => undefined,
    dispose: () => undefined,
  };
}
