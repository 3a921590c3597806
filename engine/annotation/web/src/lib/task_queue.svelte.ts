// Asking a campaign for the next piece of work, and asking again where there is none for the moment.
// Annotating and reviewing are both queues; what is done with a lease is theirs.

import { ApiError, isNothing } from './api';
import type { Connection } from './connection.svelte';
import { backoffMs } from './sync/backoff';
import { browserClock } from './sync/clock';
import type { Campaign, Lease, Nothing } from './types';

/** How often to ask where somebody else's work may become free. */
const ASK_AGAIN_MS = 20_000;
/** How long handing in may hold up the next task. */
const HAND_IN_MS = 1_500;

export type QueueState =
  | { kind: 'fetching' }
  | { kind: 'given' }
  | { kind: 'nothing'; nothing: Nothing }
  | { kind: 'waiting'; error: ApiError }
  | { kind: 'failed'; error: ApiError };

export class TaskQueue<L extends Lease> {
  state = $state.raw<QueueState>({ kind: 'fetching' });
  campaign = $state.raw<Campaign | null>(null);
  #failures = 0;
  #cancelRetry: (() => void) | null = null;
  #asking: Promise<void> | null = null;
  #closed = false;

  constructor(
    private readonly connection: Connection,
    private readonly campaignId: string,
    private readonly next: (finished: string[]) => Promise<L | Nothing>,
    private readonly given: (lease: L) => Promise<void>,
  ) {}

  get closed(): boolean {
    return this.#closed;
  }

  /** Asks for the next task, and again later where that fails for the moment. */
  take(): Promise<void> {
    this.#asking ??= this.#take().finally(() => (this.#asking = null));
    return this.#asking;
  }

  /** The network or the tab is back. */
  wake(): void {
    if (this.state.kind === 'waiting' || this.state.kind === 'nothing') void this.take();
  }

  close(): void {
    this.#closed = true;
    this.#cancelRetry?.();
  }

  async #take(): Promise<void> {
    this.#cancelRetry?.();
    try {
      const answer = await this.#ask();
      if (this.#closed) return;
      this.#failures = 0;
      if (isNothing(answer)) this.#rest(answer);
      else {
        await this.given(answer);
        this.state = { kind: 'given' };
      }
      void this.#count();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (!this.#closed) this.#failed(error);
    }
  }

  async #ask(): Promise<L | Nothing> {
    const { outbox } = this.connection;
    for (;;) {
      // Usually a few milliseconds: what is finished goes first.
      await outbox.settled(HAND_IN_MS);
      const answer = await this.next(outbox.tasksOf(this.campaignId));
      if (isNothing(answer)) return answer;
      if (!(await outbox.rebind(answer.task.id, answer.lease_id))) return answer;
    }
  }

  #rest(nothing: Nothing): void {
    this.state = { kind: 'nothing', nothing };
    const over = nothing.nothing === 'closed' || nothing.nothing === 'no-images';
    if (!over) this.#later(ASK_AGAIN_MS);
  }

  #failed(error: ApiError): void {
    this.#failures += 1;
    const again = error.temporary || error.signedOut;
    this.state = { kind: again ? 'waiting' : 'failed', error };
    if (again) this.#later(backoffMs(this.#failures, Math.random(), error.retryAfterMs));
  }

  #later(milliseconds: number): void {
    this.#cancelRetry = browserClock.after(milliseconds, () => void this.take());
  }

  async #count(): Promise<void> {
    try {
      this.campaign = await this.connection.api.campaign(this.campaignId);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error; // the counts of before stay
    }
  }
}
