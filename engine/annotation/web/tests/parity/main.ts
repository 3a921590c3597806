// Answers the questions of tests/annotation/test_web_parity.py: one JSON object on stdin with the
// tasks, one on stdout with what this code makes of them. Files of numbers are named by their paths.

import { readFileSync, writeFileSync } from 'node:fs';
import { floatsToHalves, halvesToFloats } from '../../src/lib/decoder/float16';
import { offeredTokens } from '../../src/lib/decoder/prompts';
import { readSafetensors, floatsOf } from '../../src/lib/decoder/safetensors';
import { maskOfLogits } from '../../src/lib/decoder/upsample';
import {
  frameOf,
  fromRle,
  maskToLogits,
  strokeMask,
  toRle,
  union,
  subtract,
  type Rle,
  type StrokePoint,
} from '../../src/lib/masks';

interface Questions {
  codec: Rle[];
  pairs: [Rle, Rle][];
  strokes: { points: StrokePoint[]; radius: number; width: number; height: number }[];
  frames: { width: number; height: number; image_size: number; pad_multiple: number }[];
  upsample: { logits: string; frame: Questions['frames'][number] }[];
  prompts: { rle: Rle; image_size: number; pad_multiple: number; out: string }[];
  halves: { halves: string; floats: string; out_floats: string; out_halves: string } | null;
  safetensors: { file: string; out: string }[];
  tokens: number[][];
}

function bytesOf(path: string): ArrayBuffer {
  const file = readFileSync(path);
  return file.buffer.slice(file.byteOffset, file.byteOffset + file.byteLength) as ArrayBuffer;
}

function frameFor({ width, height, image_size, pad_multiple }: Questions['frames'][number]) {
  return frameOf(width, height, image_size, pad_multiple);
}

const questions = JSON.parse(readFileSync(0, 'utf-8')) as Questions;
const { halves } = questions;
if (halves) {
  // Without the browser's own Float16Array: that one is not ours to test.
  const floats = halvesToFloats(new Uint16Array(bytesOf(halves.halves)), null);
  writeFileSync(halves.out_floats, new Uint8Array(floats.buffer));
  const back = floatsToHalves(new Float32Array(bytesOf(halves.floats)), null);
  writeFileSync(halves.out_halves, new Uint8Array(back.buffer));
}
for (const { rle, image_size, pad_multiple, out } of questions.prompts) {
  const [height, width] = rle.size;
  const logits = maskToLogits(fromRle(rle), frameOf(width, height, image_size, pad_multiple));
  writeFileSync(out, new Uint8Array(logits.buffer));
}
const answers = {
  codec: questions.codec.map((rle) => {
    const mask = fromRle(rle);
    return { rle: toRle(mask), area: mask.area, box: [mask.x0, mask.y0, mask.w, mask.h] };
  }),
  pairs: questions.pairs.map(([a, b]) => ({
    union: toRle(union(fromRle(a), fromRle(b))),
    subtract: toRle(subtract(fromRle(a), fromRle(b))),
  })),
  strokes: questions.strokes.map(({ points, radius, width, height }) =>
    toRle(strokeMask(points, radius, width, height)),
  ),
  frames: questions.frames.map(frameFor),
  upsample: questions.upsample.map(({ logits, frame }) =>
    toRle(maskOfLogits(new Float32Array(bytesOf(logits)), frameFor(frame))),
  ),
  safetensors: questions.safetensors.map(({ file, out }) => {
    const { tensors, metadata } = readSafetensors(bytesOf(file));
    const named = [...tensors].sort(([a], [b]) => (a < b ? -1 : 1));
    const floats = named.flatMap(([, tensor]) => Array.from(floatsOf(tensor)));
    writeFileSync(out, new Uint8Array(Float32Array.from(floats).buffer));
    return { metadata, shapes: named.map(([name, tensor]) => [name, tensor.shape]) };
  }),
  tokens: questions.tokens.map((iou) =>
    offeredTokens(iou, { points: [{ x: 0, y: 0, label: 1 }], box: null, mask: null }),
  ),
};
writeFileSync(1, JSON.stringify(answers));
