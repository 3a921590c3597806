// The log of what a person did in one task: numbered, kept in the browser until the service has it,
// sent in batches. The service tells repeated events by (task, page_id, seq), so sending twice is safe.
//   const log = new EventLog({ store, api, clock, taskId, lease });  log.add('click', id, { x, y });

import { ApiError, type Api } from '../api';
import type { TaskEvent } from '../types';
import { backoffMs } from './backoff';
import { newId, type Clock } from './clock';
import type { Store, Write } from './store';

const SEND_AFTER_MS = 3_000;
const BATCH = 200;

/** An event in the browser's store. */
export interface KeptEvent {
  task_id: string;
  page_id: string;
  event: TaskEvent;
}

export interface EventLogOptions {
  store: Store;
  api: Pick<Api, 'sendEvents'>;
  clock: Clock;
  taskId: string;
  lease: () => string;
  pageId?: string;
  random?: () => number;
  /** Called when the number of unsent events changes. */
  oncount?: (unsent: number) => void;
  /** The service refused for good; the events stay in the browser. */
  onerror?: (error: ApiError) => void;
}

export class EventLog {
  readonly pageId: string;
  readonly #o: EventLogOptions;
  #unsent: TaskEvent[] = [];
  #lastSeq = 0;
  #failures = 0;
  #cancelTimer: (() => void) | null = null;
  #sending: Promise<void> | null = null;
  #stored: Promise<void> = Promise.resolve();
  #stopped = false;

  constructor(options: EventLogOptions) {
    this.#o = options;
    this.pageId = options.pageId ?? newId();
  }

  get lastSeq(): number {
    return this.#lastSeq;
  }

  /** What the service has not acknowledged; goes into the submission. */
  get unsent(): readonly TaskEvent[] {
    return this.#unsent;
  }

  add(kind: string, objectId: string | null = null, data: Record<string, unknown> = {}): void {
    if (this.#stopped) return;
    const seq = ++this.#lastSeq;
    const event = { seq, at_ms: this.#o.clock.now(), kind, object_id: objectId, data };
    this.#unsent.push(event);
    const kept: KeptEvent = { task_id: this.#o.taskId, page_id: this.pageId, event };
    const key = eventKey(this.#o.taskId, this.pageId, seq);
    this.#stored = this.#stored.then(() => this.#write([{ put: 'events', key, value: kept }]));
    this.#o.oncount?.(this.#unsent.length);
    if (this.#failures) return;
    if (this.#unsent.length >= BATCH) void this.flush();
    else this.#cancelTimer ??= this.#o.clock.after(SEND_AFTER_MS, () => void this.flush());
  }

  /** Sends everything now. Resolves when it is sent or has failed; never rejects. */
  flush(): Promise<void> {
    this.#sending ??= this.#send().finally(() => (this.#sending = null));
    return this.#sending;
  }

  /** Nothing is sent any more: the rest goes with the submission. */
  stop(): void {
    this.#stopped = true;
    this.#cancelTimer?.();
    this.#cancelTimer = null;
  }

  async #send(): Promise<void> {
    this.#cancelTimer?.();
    this.#cancelTimer = null;
    while (this.#unsent.length && !this.#stopped) {
      const batch = this.#unsent.slice(0, BATCH);
      try {
        await this.#o.api.sendEvents(this.#o.taskId, this.#o.lease(), this.pageId, batch);
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        this.#failed(error);
        return;
      }
      this.#failures = 0;
      await this.#acknowledged(batch);
    }
  }

  async #acknowledged(batch: TaskEvent[]): Promise<void> {
    const last = batch[batch.length - 1]!.seq;
    this.#unsent = this.#unsent.filter((event) => event.seq > last);
    this.#o.oncount?.(this.#unsent.length);
    await this.#stored;
    await this.#write(deletions(this.#o.taskId, this.pageId, batch));
  }

  #failed(error: ApiError): void {
    if (this.#stopped) return;
    this.#failures += 1;
    if (!error.temporary) this.#o.onerror?.(error);
    // A lost lease or a refused batch is not sent again: the submission carries them, or nobody.
    if (!error.temporary && !error.signedOut) return;
    const wait = backoffMs(this.#failures, (this.#o.random ?? Math.random)(), error.retryAfterMs);
    this.#cancelTimer = this.#o.clock.after(wait, () => void this.flush());
  }

  async #write(writes: Write[]): Promise<void> {
    try {
      await this.#o.store.write(writes);
    } catch (error) {
      console.warn('maskwheel: events are not kept in this browser', error);
    }
  }
}

export function eventKey(taskId: string, pageId: string, seq: number): string {
  return `${taskId}/${pageId}/${String(seq).padStart(9, '0')}`;
}

function deletions(taskId: string, pageId: string, events: readonly TaskEvent[]): Write[] {
  return events.map(({ seq }) => ({ delete: 'events', key: eventKey(taskId, pageId, seq) }));
}

/**
 * Sends what earlier visits of this task left in the browser (a reload cuts the batch that waits).
 * Rejects with the ApiError of the first batch that fails.
 */
export async function sendLeftEvents(
  store: Store,
  api: Pick<Api, 'sendEvents'>,
  taskId: string,
  lease: string,
  exceptPageId: string,
): Promise<void> {
  const kept = await store.list<KeptEvent>('events', `${taskId}/`);
  const pages = new Map<string, TaskEvent[]>();
  for (const { page_id, event } of kept) {
    if (page_id === exceptPageId) continue;
    pages.set(page_id, [...(pages.get(page_id) ?? []), event]);
  }
  for (const [pageId, events] of pages) {
    for (let start = 0; start < events.length; start += BATCH) {
      const batch = events.slice(start, start + BATCH);
      await api.sendEvents(taskId, lease, pageId, batch);
      await store.write(deletions(taskId, pageId, batch));
    }
  }
}

/** Writes that forget all kept events of a task: it is done, the service has them. */
export async function forgetEvents(store: Store, taskId: string): Promise<Write[]> {
  const kept = await store.list<KeptEvent>('events', `${taskId}/`);
  return kept.map(({ page_id, event }) => ({
    delete: 'events',
    key: eventKey(taskId, page_id, event.seq),
  }));
}
