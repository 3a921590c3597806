// The decoder that runs in this browser, in a worker.

import { frameOf, type Frame } from '../masks';
import type { DecoderDescription, TaskImage } from '../types';
import { anchored } from './anchored';
import { Scheduler } from './scheduler';
import type { Source } from './source';
import type { Answer, Candidate, Decoder, DecoderPrompts, DecoderTask, Prepared } from './types';
import { startWorker, WorkerClient, type WorkerLike } from './worker_client';

/** Images that stay prepared: the one at hand, the next, and the one before. */
const IMAGES_KEPT = 3;
/** A preview that takes longer would keep a click waiting as long. */
const SLOWEST_PREVIEW_MS = 80;

interface Previewed {
  readonly prepared: Prepared;
  readonly prompts: DecoderPrompts;
  /** Null until its turn came. */
  answer: Promise<Answer> | null;
}

export class BrowserDecoder implements Decoder {
  readonly kind = 'browser';
  readonly #scheduler = new Scheduler();
  readonly #images = new Map<string, Promise<unknown>>(); // the one used last comes last
  #previewed: Previewed | null = null;
  #lastMs = 0;

  private constructor(
    private readonly description: DecoderDescription,
    private readonly source: Source,
    private readonly client: WorkerClient,
    readonly threads: number,
  ) {}

  /** Fetch the model and start it. Threads need a page that is isolated from other origins. */
  static async load(
    description: DecoderDescription,
    source: Source,
    threads: number,
    worker: WorkerLike = startWorker(),
  ): Promise<BrowserDecoder> {
    const client = new WorkerClient(worker);
    const { files } = description;
    try {
      const [decode, prepare] = await Promise.all([
        source.model(files.decode),
        files.prepare ? source.model(files.prepare) : null,
      ]);
      const transfer = prepare ? [decode, prepare] : [decode];
      await client.call({ kind: 'load', decode, prepare, threads }, transfer);
    } catch (error) {
      client.dispose();
      throw error;
    }
    return new BrowserDecoder(description, source, client, threads);
  }

  async prepare(task: DecoderTask): Promise<Prepared> {
    await this.#ready(task.image, 'click');
    return { task, frame: this.#frame(task.image) };
  }

  async prefetch(image: TaskImage): Promise<void> {
    await this.#ready(image, 'later');
  }

  async decode(prepared: Prepared, prompts: DecoderPrompts): Promise<Answer> {
    const began = performance.now();
    const shown = this.#previewed;
    if (shown?.answer && shown.prepared === prepared && samePrompts(shown.prompts, prompts)) {
      const { candidates, best } = await shown.answer;
      return { candidates, best, milliseconds: performance.now() - began };
    }
    await this.#ready(prepared.task.image, 'click');
    return this.#scheduler.add('click', () => this.#decode(prepared, prompts, began));
  }

  async preview(prepared: Prepared, prompts: DecoderPrompts): Promise<Answer | null> {
    const key = prepared.task.image.id;
    if (this.#lastMs > SLOWEST_PREVIEW_MS || !this.#images.has(key)) return null;
    const began = performance.now();
    const previewed: Previewed = { prepared, prompts, answer: null };
    this.#previewed = previewed;
    return this.#scheduler.preview(
      () => (previewed.answer = this.#decode(prepared, prompts, began)),
    );
  }

  dispose(): void {
    this.client.dispose();
  }

  async #decode(prepared: Prepared, prompts: DecoderPrompts, began: number): Promise<Answer> {
    const started = performance.now();
    const key = prepared.task.image.id;
    const { frame } = prepared;
    const request = { kind: 'decode', key, frame, prompts: anchored(prompts, frame) } as const;
    const candidates: Candidate[] = await this.client.call(request);
    const ended = performance.now();
    this.#lastMs = ended - started;
    return { candidates, best: 0, milliseconds: ended - began };
  }

  #frame(image: TaskImage): Frame {
    const { image_size, pad_multiple } = this.description;
    return frameOf(image.width, image.height, image_size, pad_multiple);
  }

  /** See that the worker holds what the image's clicks share. */
  #ready(image: TaskImage, rank: 'click' | 'later'): Promise<unknown> {
    const key = image.id;
    const ready = this.#images.get(key) ?? this.#load(image, rank);
    this.#images.delete(key);
    this.#images.set(key, ready);
    for (const oldest of [...this.#images.keys()].slice(0, -IMAGES_KEPT)) {
      this.#images.delete(oldest);
      void this.client.call({ kind: 'forget', key: oldest }).catch(() => undefined);
    }
    return ready;
  }

  async #load(image: TaskImage, rank: 'click' | 'later'): Promise<unknown> {
    try {
      const embedding = await this.source.embedding(image);
      return await this.#scheduler.add(rank, () =>
        this.client.call({ kind: 'prepare', key: image.id, embedding }, [embedding]),
      );
    } catch (error) {
      this.#images.delete(image.id); // the next call tries again
      throw error;
    }
  }
}

function samePrompts(a: DecoderPrompts, b: DecoderPrompts): boolean {
  return (
    a.mask === b.mask && JSON.stringify([a.points, a.box]) === JSON.stringify([b.points, b.box])
  );
}
