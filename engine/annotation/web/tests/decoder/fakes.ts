// Stand-ins at the decoder's seams: a worker that answers from a function, a service, a task.

import { Api } from '../../src/lib/api';
import type { AnyRequest, Envelope, Reply } from '../../src/lib/decoder/protocol';
import type { WorkerLike } from '../../src/lib/decoder/worker_client';
import type { Candidate, DecoderTask } from '../../src/lib/decoder';
import { emptyMask } from '../../src/lib/masks';
import type { DecoderDescription, TaskImage } from '../../src/lib/types';

type Answering = (request: AnyRequest) => Candidate[] | null | Promise<Candidate[] | null>;

/** A worker that keeps what it was asked and answers one request after the other. */
export class FakeWorker implements WorkerLike {
  readonly asked: AnyRequest[] = [];
  terminated = false;
  onmessage: ((event: MessageEvent<Reply>) => void) | null = null;
  onerror: ((event: ErrorEvent) => void) | null = null;
  #last: Promise<void> = Promise.resolve();

  constructor(private readonly answering: Answering = candidates) {}

  postMessage({ id, request }: Envelope): void {
    this.asked.push(request);
    this.#last = this.#last.then(async () => {
      const reply = await Promise.resolve(request)
        .then(this.answering)
        .then(
          (value): Reply => ({ id, value }),
          (error: unknown): Reply => ({ id, error: String(error) }),
        );
      if (!this.terminated) this.onmessage?.({ data: reply } as MessageEvent<Reply>);
    });
  }

  terminate(): void {
    this.terminated = true;
  }

  kinds(): string[] {
    return this.asked.map(({ kind }) => kind);
  }
}

/** One empty mask whose predicted IoU tells which request it answers. */
export function candidates(request: AnyRequest): Candidate[] | null {
  if (request.kind !== 'decode' && request.kind !== 'masks') return null;
  const iou = request.prompts.points[0]?.x ?? 0;
  return [{ mask: emptyMask(4, 4), iou, logits: new Float32Array(1) }];
}

/** A promise that is settled from outside. */
export class Gate {
  open!: () => void;
  readonly passed = new Promise<void>((resolve) => {
    this.open = resolve;
  });
}

export const DESCRIPTION: DecoderDescription = {
  model_id: 'm',
  image_size: 64,
  pad_multiple: 32,
  low_res_stride: 4,
  points: 'input frame, float32',
  inputs: [],
  files: {
    prepare: { name: 'prepare_1.onnx', sha256: '', bytes: 3 },
    decode: { name: 'decode_1.onnx', sha256: '', bytes: 5 },
  },
};

export function imageNamed(id: string): TaskImage {
  return { id, width: 64, height: 48, pixels: '', preview: '', embedding: `/embedding/${id}` };
}

export function taskOf(id: string): DecoderTask {
  return { id: `task ${id}`, image: imageNamed(id) };
}

/** An Api over a function from path to body. */
export function apiOf(answer: (path: string, init: RequestInit) => ArrayBuffer | Response): Api {
  return new Api({
    fetch: (input, init) => {
      const found = answer(String(input), init ?? {});
      return Promise.resolve(found instanceof Response ? found : new Response(found));
    },
  });
}

/** A safetensors file of float16 tensors. */
export function safetensors(
  tensors: Record<string, { shape: number[]; halves: number[] }>,
): ArrayBuffer {
  let at = 0;
  const header = Object.entries(tensors).map(([name, { shape, halves }]) => {
    const data_offsets = [at, (at += 2 * halves.length)];
    return [name, { dtype: 'F16', shape, data_offsets }] as const;
  });
  const text = new TextEncoder().encode(JSON.stringify(Object.fromEntries(header)));
  const file = new Uint8Array(8 + text.length + at);
  new DataView(file.buffer).setBigUint64(0, BigInt(text.length), true);
  file.set(text, 8);
  const halves = Uint16Array.from(Object.values(tensors).flatMap((tensor) => tensor.halves));
  file.set(new Uint8Array(halves.buffer), 8 + text.length);
  return file.buffer;
}
