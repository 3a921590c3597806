// SAM's public ONNX export on the same runtime, as pages use it: all inputs with every click. It scales
// its masks to the image in the graph; one without that step has its logits upsampled by our code.

import * as ort from 'onnxruntime-web/wasm';
import loaderUrl from 'onnxruntime-web/ort-wasm-simd-threaded.mjs?url';
import wasmUrl from 'onnxruntime-web/ort-wasm-simd-threaded.wasm?url';
import { candidatesOf } from '../src/lib/decoder/candidates';
import { encodePrompts, offeredTokens } from '../src/lib/decoder/prompts';
import { floatsOf, readSafetensors } from '../src/lib/decoder/safetensors';
import type { Candidate, DecoderPrompts } from '../src/lib/decoder';
import { frameOf, lowResSize, maskOfBits, type Frame, type Mask } from '../src/lib/masks';

export type PublicRequest =
  | {
      kind: 'load';
      base: string;
      file: string;
      width: number;
      height: number;
      threads: number;
    }
  | { kind: 'decode'; prompts: DecoderPrompts };

export interface PublicReply {
  readonly candidates: Candidate[];
  readonly error: string | null;
}

const IMAGE_SIZE = 1024;

interface Loaded {
  readonly session: ort.InferenceSession;
  readonly embedding: ort.Tensor;
  readonly frame: Frame;
}

let loaded: Loaded | null = null;

async function load(request: Extract<PublicRequest, { kind: 'load' }>): Promise<void> {
  ort.env.wasm.wasmPaths = { mjs: loaderUrl, wasm: wasmUrl };
  ort.env.wasm.numThreads = request.threads;
  const bytes = async (name: string): Promise<ArrayBuffer> =>
    (await fetch(request.base + name)).arrayBuffer();
  const session = await ort.InferenceSession.create(await bytes(request.file), {
    executionProviders: ['wasm'],
    graphOptimizationLevel: 'all',
  });
  const { tensors } = readSafetensors(await bytes('embedding.safetensors'));
  const coarse = tensors.get('coarse')!;
  const embedding = new ort.Tensor('float32', floatsOf(coarse), coarse.shape);
  const frame = frameOf(request.width, request.height, IMAGE_SIZE, IMAGE_SIZE);
  loaded = { session, embedding, frame };
}

async function decode(prompts: DecoderPrompts): Promise<Candidate[]> {
  if (!loaded) throw new Error('nothing is loaded');
  const { session, embedding, frame } = loaded;
  const { xy, labels } = encodePrompts(prompts, frame);
  const [height, width] = lowResSize(frame);
  const inputs: Record<string, ort.Tensor> = {
    image_embeddings: embedding,
    points_xy: new ort.Tensor('float32', xy, [1, labels.length, 2]),
    point_labels: new ort.Tensor('float32', labels, [1, labels.length]),
    mask_logits: new ort.Tensor('float32', prompts.mask ?? new Float32Array(height * width), [
      1,
      1,
      height,
      width,
    ]),
    has_mask: new ort.Tensor('float32', Float32Array.of(prompts.mask ? 1 : 0), [1]),
  };
  const scales = session.inputNames.includes('orig_im_size');
  if (scales) inputs['orig_im_size'] = new ort.Tensor('float32', Float32Array.from(frame.original));
  const outputs = await session.run(inputs);
  const iou = outputs['iou']!.data as Float32Array;
  const logits = outputs['logits']!.data as Float32Array;
  if (!scales) return candidatesOf({ iou, logits }, prompts, frame);
  const masks = outputs['masks']!.data as Float32Array;
  return offeredTokens(iou, prompts).map((token) => ({
    mask: maskAbove(masks, token, frame),
    iou: iou[token]!,
    logits: logits.slice(token * height * width, (token + 1) * height * width),
  }));
}

/** Where a map of the image's size is above 0. */
function maskAbove(maps: Float32Array, index: number, frame: Frame): Mask {
  const [height, width] = frame.original;
  const start = index * height * width;
  const bits = new Uint8Array(height * width);
  for (let i = 0; i < bits.length; i++) bits[i] = maps[start + i]! > 0 ? 1 : 0;
  return maskOfBits(width, height, 0, 0, width, height, bits);
}

self.onmessage = ({ data }: MessageEvent<PublicRequest>): void => {
  const work = data.kind === 'load' ? load(data).then(() => []) : decode(data.prompts);
  work.then(
    (candidates) => {
      const transfer = candidates.flatMap(({ mask, logits }) => [mask.bits.buffer, logits.buffer]);
      self.postMessage({ candidates, error: null } satisfies PublicReply, { transfer });
    },
    (error: unknown) =>
      self.postMessage({ candidates: [], error: String(error) } satisfies PublicReply),
  );
};
