// Takes the editor's open questions to the decoder, one at a time and the newest first, and brings the
// answers back. A decoder that fails is asked again after a while; nothing that was clicked is lost.

import { maskToLogits } from '../masks';
import type { Answer, Decoder, DecoderTask, Prepared } from '../decoder';
import type { DecoderKind } from '../types';
import { askedPrompts } from './prompting';
import type { DecodeRequest } from './values';

export type DecodingStatus =
  | { readonly phase: 'none' }
  | { readonly phase: 'preparing' }
  | { readonly phase: 'ready'; readonly kind: DecoderKind; readonly milliseconds: number | null }
  | { readonly phase: 'asking'; readonly kind: DecoderKind; readonly slow: boolean }
  | { readonly phase: 'failed'; readonly reason: string; readonly retryInMs: number };

export interface DecodingHost {
  /** Open questions, most urgent first. */
  requests(): readonly DecodeRequest[];
  answered(revision: number, answer: Answer, kind: DecoderKind): void;
  failed(reason: string): void;
  status(status: DecodingStatus): void;
  /** setTimeout, given so that tests need not wait; returns how to cancel. */
  later(milliseconds: number, callback: () => void): () => void;
}

const SLOW_MS = 700;
const GIVE_UP_MS = 20_000;
const RETRY_MS = [1_500, 4_000, 10_000, 20_000] as const;

export class Decoding {
  private decoder: Decoder | null = null;
  private ready: Prepared | null = null;
  /** The question under way; answers to any other are late and dropped. */
  private asking: { revision: number; cancel: () => void } | null = null;
  private failures = 0;
  private cancelRetry: (() => void) | null = null;
  private lastMs: number | null = null;
  private generation = 0;

  constructor(
    private readonly task: DecoderTask,
    private readonly host: DecodingHost,
  ) {}

  get prepared(): Prepared | null {
    return this.ready;
  }

  /** Use this decoder from now on; null while there is none yet. */
  use(decoder: Decoder | null): void {
    if (decoder === this.decoder) return;
    this.stop();
    this.decoder = decoder;
    this.ready = null;
    this.failures = 0;
    if (!decoder) return this.host.status({ phase: 'none' });
    void this.prepare(decoder, this.generation);
  }

  /** Look whether there is something to ask; call it after every change. */
  pump(): void {
    const { decoder, ready } = this;
    if (!decoder || !ready || this.asking || this.cancelRetry) return;
    const request = this.host.requests()[0];
    if (request) void this.ask(decoder, ready, request, this.generation);
  }

  /** Try again now: the person asked for it, or the network came back. */
  retry(): void {
    if (!this.cancelRetry) return;
    this.cancelRetry();
    this.cancelRetry = null;
    this.resume();
  }

  stop(): void {
    this.generation++;
    this.asking?.cancel();
    this.asking = null;
    this.cancelRetry?.();
    this.cancelRetry = null;
  }

  private resume(): void {
    if (this.ready) this.pump();
    else if (this.decoder) void this.prepare(this.decoder, this.generation);
    if (!this.asking && this.ready) this.rest();
  }

  private async prepare(decoder: Decoder, generation: number): Promise<void> {
    this.host.status({ phase: 'preparing' });
    try {
      const prepared = await decoder.prepare(this.task);
      if (generation !== this.generation) return;
      this.ready = prepared;
      this.failures = 0;
      this.rest();
      this.pump();
    } catch (error) {
      if (generation === this.generation) this.fail(error);
    }
  }

  private async ask(
    decoder: Decoder,
    prepared: Prepared,
    request: DecodeRequest,
    generation: number,
  ): Promise<void> {
    const { revision, seed } = request;
    const mine = { revision, cancel: this.watch(decoder.kind) };
    this.asking = mine;
    this.host.status({ phase: 'asking', kind: decoder.kind, slow: false });
    try {
      const mask =
        seed === null
          ? null
          : seed.kind === 'logits'
            ? seed.logits
            : maskToLogits(seed.mask, prepared.frame);
      const answer = await decoder.decode(prepared, { ...askedPrompts(request.prompts), mask });
      if (generation !== this.generation || this.asking !== mine) return;
      this.finish();
      this.failures = 0;
      this.lastMs = answer.milliseconds;
      this.host.answered(revision, answer, decoder.kind);
      this.rest();
      this.pump();
    } catch (error) {
      if (generation !== this.generation || this.asking !== mine) return;
      this.finish();
      this.fail(error);
    }
  }

  /** Say that it takes long; in the end stop waiting. */
  private watch(kind: DecoderKind): () => void {
    const slow = this.host.later(SLOW_MS, () =>
      this.host.status({ phase: 'asking', kind, slow: true }),
    );
    const late = this.host.later(GIVE_UP_MS, () => {
      this.finish();
      this.fail(new Error(`no answer for ${GIVE_UP_MS / 1000} s`));
    });
    return () => {
      slow();
      late();
    };
  }

  private finish(): void {
    this.asking?.cancel();
    this.asking = null;
  }

  private rest(): void {
    if (!this.decoder || this.asking) return;
    this.host.status({ phase: 'ready', kind: this.decoder.kind, milliseconds: this.lastMs });
  }

  private fail(error: unknown): void {
    const reason = error instanceof Error ? error.message : String(error);
    const retryInMs = RETRY_MS[Math.min(this.failures, RETRY_MS.length - 1)]!;
    this.failures++;
    this.host.failed(reason);
    this.host.status({ phase: 'failed', reason, retryInMs });
    this.cancelRetry = this.host.later(retryInMs, () => {
      this.cancelRetry = null;
      this.resume();
    });
  }
}
