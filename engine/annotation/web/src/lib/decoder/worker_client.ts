// The page's end of the worker: requests become promises.
//   const client = new WorkerClient(startWorker());
//   const candidates = await client.call({ kind: 'decode', key, frame, prompts });

import type { Calls, Envelope, Reply } from './protocol';
import { DecoderError } from './types';

/** The part of a Worker that is used. */
export interface WorkerLike {
  postMessage(message: Envelope, transfer: Transferable[]): void;
  terminate(): void;
  onmessage: ((event: MessageEvent<Reply>) => void) | null;
  onerror: ((event: ErrorEvent) => void) | null;
}

interface Waiting {
  resolve(value: unknown): void;
  reject(error: DecoderError): void;
}

export function startWorker(): WorkerLike {
  return new Worker(new URL('./worker.ts', import.meta.url), { type: 'module', name: 'decoder' });
}

export class WorkerClient {
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 1;
  #broken: DecoderError | null = null;

  constructor(private readonly worker: WorkerLike) {
    worker.onmessage = ({ data }) => {
      const waiting = this.#waiting.get(data.id);
      this.#waiting.delete(data.id);
      if ('error' in data) waiting?.reject(new DecoderError(data.error));
      else waiting?.resolve(data.value);
    };
    worker.onerror = (event) =>
      this.#fail(`the decoder's worker failed: ${event.message || 'it could not be loaded'}`);
  }

  /** Send a request; what is listed in `transfer` belongs to the worker from then on. */
  call<Kind extends keyof Calls>(
    request: Calls[Kind]['request'] & { kind: Kind },
    transfer: Transferable[] = [],
  ): Promise<Calls[Kind]['value']> {
    if (this.#broken) return Promise.reject(this.#broken);
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve: (value) => resolve(value as Calls[Kind]['value']), reject });
      this.worker.postMessage({ id, request }, transfer);
    });
  }

  /** Stop the worker; whoever still waits is told. */
  dispose(): void {
    this.worker.terminate();
    this.#fail('the decoder was closed');
  }

  #fail(message: string): void {
    this.#broken = new DecoderError(message);
    for (const { reject } of this.#waiting.values()) reject(this.#broken);
    this.#waiting.clear();
  }
}
