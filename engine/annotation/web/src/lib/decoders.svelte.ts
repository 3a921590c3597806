// The decoders of this visit: chosen once per model, kept from task to task, and what was measured.

import { ApiError, type Api } from './api';
import { chooseDecoder, describeMeasured, type Decoder, type Measured } from './decoder';
import type { DecoderKind, Task } from './types';

interface Kept {
  decoder: Decoder;
  measured: Measured;
}

export class Decoders {
  /** Answers clicks on the task that was last asked for; null while it is loading or has failed. */
  current = $state.raw<Decoder | null>(null);
  measured = $state.raw<Measured | null>(null);
  problem = $state('');
  readonly text = $derived(this.measured ? describeMeasured(this.measured) : 'loading the model');
  readonly #kept = new Map<string, Promise<Kept>>();
  #wanted = '';

  constructor(
    private readonly api: Api,
    private readonly lease: () => string,
  ) {}

  /** Makes the decoder of a task's model the current one; says in `problem` why it cannot. */
  async use(task: Task): Promise<void> {
    const url = task.decoder;
    this.#wanted = url;
    this.problem = '';
    let kept = this.#kept.get(url);
    if (!kept) {
      this.current = this.measured = null;
      kept = this.#choose(task);
      this.#kept.set(url, kept);
    }
    try {
      const { decoder, measured } = await kept;
      if (this.#wanted !== url) return;
      this.current = decoder;
      this.measured = measured;
    } catch (error) {
      this.#kept.delete(url); // the next task, or a person, may try again
      if (this.#wanted === url) this.problem = wordsFor(error);
    }
  }

  dispose(): void {
    for (const kept of this.#kept.values()) {
      void kept.then(
        ({ decoder }) => decoder.dispose(),
        () => undefined,
      );
    }
    this.#kept.clear();
    this.#wanted = '';
    this.current = this.measured = null;
  }

  async #choose(task: Task): Promise<Kept> {
    const { api, lease } = this;
    const description = await api.decoder(task.decoder);
    const base = task.decoder.slice(0, task.decoder.lastIndexOf('/') + 1);
    return chooseDecoder(description, { task, lease, api, base, only: asked() });
  }
}

/** `?decoder=browser` or `?decoder=server` in the address: no comparison. */
function asked(): DecoderKind | undefined {
  const kind = new URLSearchParams(location.search).get('decoder');
  return kind === 'browser' || kind === 'server' ? kind : undefined;
}

function wordsFor(error: unknown): string {
  if (error instanceof ApiError && error.status === 0) return 'it could not be fetched: no network';
  return error instanceof Error ? error.message : String(error);
}
