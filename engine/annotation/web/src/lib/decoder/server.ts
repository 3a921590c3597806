// The decoder that asks the service for each click; its worker only makes masks of the answers.

import type { Api } from '../api';
import { frameOf } from '../masks';
import type { DecoderDescription } from '../types';
import { anchored } from './anchored';
import { floatsToHalves } from './float16';
import { floatsOf, readSafetensors, type Safetensors } from './safetensors';
import {
  DecoderError,
  type Answer,
  type Decoder,
  type DecoderPrompts,
  type DecoderTask,
  type Prepared,
} from './types';
import { startWorker, WorkerClient, type WorkerLike } from './worker_client';

export class ServerDecoder implements Decoder {
  readonly kind = 'server';
  readonly threads = 0;
  readonly #client: WorkerClient;

  constructor(
    private readonly description: DecoderDescription,
    private readonly api: Api,
    /** The lease of the task at hand. */
    private readonly lease: () => string,
    worker: WorkerLike = startWorker(),
  ) {
    this.#client = new WorkerClient(worker);
  }

  prepare(task: DecoderTask): Promise<Prepared> {
    const { width, height } = task.image;
    const { image_size, pad_multiple } = this.description;
    return Promise.resolve({ task, frame: frameOf(width, height, image_size, pad_multiple) });
  }

  async decode(prepared: Prepared, prompts: DecoderPrompts): Promise<Answer> {
    const began = performance.now();
    const path = `/api/tasks/${encodeURIComponent(prepared.task.id)}/decode`;
    const body = requestBody(anchored(prompts, prepared.frame));
    const bytes = await this.api.bytes(path, { method: 'POST', body, lease: this.lease() });
    const answer = readSafetensors(bytes);
    const raw = { iou: floatsNamed(answer, 'iou'), logits: floatsNamed(answer, 'logits') };
    const request = { kind: 'masks', raw, frame: prepared.frame, prompts } as const;
    const candidates = await this.#client.call(request);
    return { candidates, best: 0, milliseconds: performance.now() - began };
  }

  /** Nothing: previews of every movement would keep the server from answering clicks. */
  preview(): Promise<null> {
    return Promise.resolve(null);
  }

  /** Nothing: embeddings stay on the server. */
  prefetch(): Promise<void> {
    return Promise.resolve();
  }

  dispose(): void {
    this.#client.dispose();
  }
}

function requestBody(prompts: DecoderPrompts): { prompts: object[]; mask_logits?: string } {
  const given: object[] = prompts.points.map((point) => ({ kind: 'point', ...point }));
  if (prompts.box) {
    const [x0, y0, x1, y1] = prompts.box;
    given.push({ kind: 'box', x0, y0, x1, y1 });
  }
  if (!prompts.mask) return { prompts: given };
  return {
    prompts: given,
    mask_logits: base64(new Uint8Array(floatsToHalves(prompts.mask).buffer)),
  };
}

function base64(bytes: Uint8Array): string {
  const parts: string[] = [];
  for (let at = 0; at < bytes.length; at += 0x8000)
    parts.push(String.fromCharCode(...bytes.subarray(at, at + 0x8000)));
  return btoa(parts.join(''));
}

function floatsNamed(answer: Safetensors, name: string): Float32Array {
  const tensor = answer.tensors.get(name);
  if (!tensor) throw new DecoderError(`the server's answer has no tensor ${name}`);
  return floatsOf(tensor);
}
