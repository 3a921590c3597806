// Keeps a lease alive while somebody works, and notices when it is gone.
//   const heart = new Heartbeat({ api, clock, taskId, lease, seconds: 120, onlost });  heart.start();

import { ApiError, type Api } from '../api';
import type { Clock } from './clock';

/** Beats per lease: two may be missed before it runs out. */
const BEATS = 3;
/** Somebody who left does not hold an image for ever; the draft is at the service. */
const IDLE_MS = 15 * 60_000;

export interface HeartbeatOptions {
  api: Pick<Api, 'heartbeat'>;
  clock: Clock;
  taskId: string;
  lease: () => string;
  /** How long the lease lasts from each beat. */
  seconds: number;
  onlost?: (error: ApiError) => void;
}

export class Heartbeat {
  readonly #o: HeartbeatOptions;
  #cancelTimer: (() => void) | null = null;
  #lastActiveMs: number;
  #stopped = true;
  #beating: Promise<void> | null = null;

  constructor(options: HeartbeatOptions) {
    this.#o = options;
    this.#lastActiveMs = options.clock.now();
  }

  start(): void {
    this.#stopped = false;
    this.#plan();
  }

  stop(): void {
    this.#stopped = true;
    this.#cancelTimer?.();
    this.#cancelTimer = null;
  }

  /** Somebody is there. The first movement after a long absence asks at once for the lease. */
  active(): void {
    const idle = this.#idle;
    this.#lastActiveMs = this.#o.clock.now();
    if (idle && !this.#stopped) void this.beat();
  }

  /** Beats now: the network is back, the tab is seen again. */
  beat(): Promise<void> {
    this.#beating ??= this.#beat().finally(() => (this.#beating = null));
    return this.#beating;
  }

  get #idle(): boolean {
    return this.#o.clock.now() - this.#lastActiveMs > IDLE_MS;
  }

  #plan(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = this.#o.clock.after((this.#o.seconds * 1000) / BEATS, () => {
      if (this.#idle) this.#plan();
      else void this.beat();
    });
  }

  async #beat(): Promise<void> {
    if (this.#stopped) return;
    try {
      await this.#o.api.heartbeat(this.#o.taskId, this.#o.lease());
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      // A dead network or an ended session may come back before somebody else takes the image.
      if (!error.temporary && !error.signedOut) {
        if (!this.#stopped) this.#o.onlost?.(error);
        this.stop();
        return;
      }
    }
    if (!this.#stopped) this.#plan();
  }
}
