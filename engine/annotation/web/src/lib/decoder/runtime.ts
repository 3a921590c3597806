// The exported model on onnxruntime-web: `prepare` once for each image, `decode` for each click.
// Runs inside the worker. What an image needs stays there as tensors, so that a click brings only
// its prompts.

import * as ort from 'onnxruntime-web/wasm';
import loaderUrl from 'onnxruntime-web/ort-wasm-simd-threaded.mjs?url';
import wasmUrl from 'onnxruntime-web/ort-wasm-simd-threaded.wasm?url';
import { lowResSize, type Frame } from '../masks';
import type { RawAnswer } from './candidates';
import type { LoadRequest } from './protocol';
import { encodePrompts } from './prompts';
import { floatsOf, readSafetensors, type StoredTensor } from './safetensors';
import { DecoderError, type DecoderPrompts } from './types';

type Tensors = Record<string, ort.Tensor>;

const OPTIONS: ort.InferenceSession.SessionOptions = {
  executionProviders: ['wasm'],
  graphOptimizationLevel: 'all',
};
const NO_MASK: Tensors = {
  mask_logits: new ort.Tensor('float32', new Float32Array(1), [1, 1, 1, 1]),
  has_mask: new ort.Tensor('float32', Float32Array.of(0), [1]),
};
const HAS_MASK = new ort.Tensor('float32', Float32Array.of(1), [1]);

export class Runtime {
  readonly #prepared = new Map<string, Tensors>();

  private constructor(
    private readonly decoder: ort.InferenceSession,
    private readonly preparer: ort.InferenceSession | null,
  ) {}

  static async load(request: LoadRequest): Promise<Runtime> {
    // Threads start from the loader and the wasm as files of their own.
    ort.env.wasm.wasmPaths = { mjs: loaderUrl, wasm: wasmUrl };
    ort.env.wasm.numThreads = request.threads;
    const decoder = await ort.InferenceSession.create(request.decode, OPTIONS);
    const preparer = request.prepare
      ? await ort.InferenceSession.create(request.prepare, OPTIONS)
      : null;
    return new Runtime(decoder, preparer);
  }

  /** Compute what all prompts of an image share, and keep it under the key. */
  async prepare(key: string, embedding: ArrayBuffer): Promise<void> {
    const { tensors } = readSafetensors(embedding);
    if (!this.preparer) {
      this.#prepared.set(key, pick(tensors, this.decoder.inputNames, asFloats));
      return;
    }
    const inputs = pick(tensors, this.preparer.inputNames, asStored);
    this.#prepared.set(key, await this.preparer.run(inputs));
  }

  forget(key: string): void {
    this.#prepared.delete(key);
  }

  async decode(key: string, prompts: DecoderPrompts, frame: Frame): Promise<RawAnswer> {
    const prepared = this.#prepared.get(key);
    if (!prepared) throw new DecoderError(`image ${key} was not prepared`);
    const { xy, labels } = encodePrompts(prompts, frame);
    const outputs = await this.decoder.run({
      ...prepared,
      points_xy: new ort.Tensor('float32', xy, [1, labels.length, 2]),
      point_labels: new ort.Tensor('float32', labels, [1, labels.length]),
      ...maskInputs(prompts, frame),
    });
    return { iou: floats(outputs, 'iou'), logits: floats(outputs, 'logits') };
  }
}

function maskInputs(prompts: DecoderPrompts, frame: Frame): Tensors {
  if (!prompts.mask) return NO_MASK;
  const mask = new ort.Tensor('float32', prompts.mask, [1, 1, ...lowResSize(frame)]);
  return { mask_logits: mask, has_mask: HAS_MASK };
}

/** The embedding's tensors that a session asks for; it may ask for others, which the click brings. */
function pick(
  tensors: ReadonlyMap<string, StoredTensor>,
  names: readonly string[],
  convert: (tensor: StoredTensor) => ort.Tensor,
): Tensors {
  const found: Tensors = {};
  for (const name of names) {
    const tensor = tensors.get(name);
    if (tensor) found[name] = convert(tensor);
  }
  return found;
}

function asFloats(tensor: StoredTensor): ort.Tensor {
  return new ort.Tensor('float32', floatsOf(tensor), tensor.shape);
}

function asStored({ data, shape }: StoredTensor): ort.Tensor {
  return data instanceof Float32Array
    ? new ort.Tensor('float32', data, shape)
    : new ort.Tensor('float16', data, shape);
}

function floats(outputs: ort.InferenceSession.OnnxValueMapType, name: string): Float32Array {
  const data = outputs[name]?.data;
  if (!(data instanceof Float32Array))
    throw new DecoderError(`the decoder has no output ${name} of float32`);
  return data;
}
