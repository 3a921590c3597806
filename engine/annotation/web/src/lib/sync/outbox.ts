// Finished work on its way to the service. An item is in the browser's store before the page goes on,
// is sent until the service acknowledges it, survives reloads and dead networks, and is never doubled:
// its submission_id stays the same. What the service refuses for good is kept and shown, not dropped.
//   await outbox.add(item);   outbox.resume();

import { ApiError, type Api } from '../api';
import type { Submission, Verdicts } from '../types';
import { backoffMs } from './backoff';
import type { Clock } from './clock';
import { forgetEvents, sendLeftEvents } from './events';
import type { Store, Write } from './store';

interface Finished {
  id: string;
  task_id: string;
  campaign_id: string;
  lease_id: string;
  /** For the person, should it be refused: which image this was. */
  image_id: string;
  made_at_ms: number;
  refused: { code: string; message: string } | null;
}

export type OutboxItem =
  | (Finished & { kind: 'submit'; submission: Submission })
  | (Finished & { kind: 'verdicts'; verdicts: Verdicts })
  | (Finished & { kind: 'skip'; reason: string });

export interface OutboxState {
  waiting: number;
  refused: OutboxItem[];
  sending: boolean;
  /** Why the last attempt failed, while it is repeated. */
  error: ApiError | null;
  /** How many items the browser could not store: they live as long as the tab. */
  unsafe: number;
}

export interface OutboxOptions {
  store: Store;
  api: Pick<Api, 'submit' | 'verdicts' | 'skip' | 'sendEvents'>;
  clock: Clock;
  random?: () => number;
  onstate?: (state: OutboxState) => void;
  /** The service has it. */
  onsent?: (item: OutboxItem) => void;
}

export class Outbox {
  readonly #o: OutboxOptions;
  #items: OutboxItem[] = [];
  readonly #unsafe = new Set<string>();
  #running: Promise<void> | null = null;
  #cancelTimer: (() => void) | null = null;
  #again = false;
  #failures = 0;
  #error: ApiError | null = null;
  #sending = false;
  #closed = false;

  constructor(options: OutboxOptions) {
    this.#o = options;
  }

  /** Reads what earlier visits left and begins to send it. */
  async open(): Promise<void> {
    this.#items = await this.#o.store.list<OutboxItem>('outbox');
    this.#items.sort((a, b) => a.made_at_ms - b.made_at_ms);
    this.#tell();
    this.resume();
  }

  close(): void {
    this.#closed = true;
    this.#cancelTimer?.();
  }

  /**
   * Takes finished work. Resolves when it is in the browser's store; `also` is written in the same step
   * (the draft that it replaces is deleted), so that a crash leaves either the draft or the item.
   */
  async add(item: OutboxItem, also: Write[] = []): Promise<void> {
    try {
      await this.#o.store.write([{ put: 'outbox', key: item.id, value: item }, ...also]);
    } catch (error) {
      console.error('maskwheel: finished work is not stored in this browser', error);
      this.#unsafe.add(item.id); // a full disk: sent all the same, and the page says so
    }
    this.#items.push(item);
    this.#failures = 0;
    this.#tell();
    this.resume();
  }

  /** Tasks that are finished here but not there yet. */
  tasksOf(campaignId: string): string[] {
    return this.#items
      .filter((item) => item.campaign_id === campaignId && !item.refused)
      .map((item) => item.task_id);
  }

  /** The service gave a finished task out again to this same person: its work goes under that lease. */
  async rebind(taskId: string, leaseId: string): Promise<boolean> {
    const item = this.#items.find((one) => one.task_id === taskId && !one.refused);
    if (!item) return false;
    item.lease_id = leaseId;
    await this.#o.store.write([{ put: 'outbox', key: item.id, value: item }]);
    this.resume();
    return true;
  }

  /** Sends now, whatever the waiting time says: something new, the network, or the session is back. */
  resume(): void {
    if (this.#closed) return;
    this.#cancelTimer?.();
    this.#cancelTimer = null;
    void this.#run();
  }

  /** Resolves when nothing waits, something failed, or the time is over. */
  async settled(milliseconds: number): Promise<void> {
    if (!this.#running) return;
    await Promise.race([
      this.#running,
      new Promise<void>((resolve) => this.#o.clock.after(milliseconds, resolve)),
    ]);
  }

  /** The person has read why it was refused, and drops it. */
  async discard(id: string): Promise<void> {
    const item = this.#items.find((one) => one.id === id);
    if (!item) return;
    this.#items = this.#items.filter((one) => one.id !== id);
    const events = await forgetEvents(this.#o.store, item.task_id);
    await this.#o.store.write([{ delete: 'outbox', key: id }, ...events]);
    this.#tell();
  }

  #run(): Promise<void> {
    this.#again = true;
    this.#running ??= this.#runAll();
    return this.#running;
  }

  /** Somebody may ask for a run while one is about to end: that one then goes round once more. */
  async #runAll(): Promise<void> {
    try {
      while (this.#again && !this.#closed) {
        this.#again = false;
        await this.#exclusively(() => this.#drain());
      }
    } catch (error) {
      console.error('maskwheel: the outbox stopped', error);
    } finally {
      this.#running = null; // in the same breath as the last look at #again
    }
  }

  /** Two tabs share one outbox; where the browser has locks only one of them sends. */
  async #exclusively(work: () => Promise<void>): Promise<void> {
    const locks = globalThis.navigator?.locks;
    if (locks) await locks.request('maskwheel-outbox', work);
    else await work();
  }

  async #drain(): Promise<void> {
    const tried = new Set<string>();
    let later: ApiError | null = null;
    for (;;) {
      const item = this.#items.find((one) => !one.refused && !tried.has(one.id));
      if (!item || this.#closed) break;
      tried.add(item.id);
      const error = await this.#attempt(item);
      if (!error) continue;
      later = error;
      // Only an answer about this item lets the others have their turn.
      if (error.status < 500) break;
    }
    if (later) this.#retryLater(later);
    else this.#failures = 0;
    this.#tell();
  }

  /** One item; the error that it has to be tried again for, or null. */
  async #attempt(item: OutboxItem): Promise<ApiError | null> {
    if (!this.#unsafe.has(item.id) && !(await this.#o.store.get('outbox', item.id))) {
      this.#items = this.#items.filter((one) => one.id !== item.id); // another tab sent it
      return null;
    }
    this.#sending = true;
    this.#tell();
    const error = await this.#deliver(item);
    this.#sending = false;
    this.#error = null;
    if (!error) {
      await this.#sent(item);
    } else if (error.temporary || error.signedOut) {
      return error;
    } else {
      item.refused = { code: error.code, message: error.message };
      await this.#o.store.write([{ put: 'outbox', key: item.id, value: item }]);
    }
    return null;
  }

  async #deliver(item: OutboxItem): Promise<ApiError | null> {
    const { api, store } = this.#o;
    try {
      if (item.kind === 'submit') {
        await sendEarlierVisits(store, api, item.task_id, item.lease_id, item.submission.page_id);
        await this.#submit(item.task_id, item.lease_id, item.submission);
      } else if (item.kind === 'verdicts') {
        await api.verdicts(item.task_id, item.lease_id, item.verdicts);
      } else {
        await api.skip(item.task_id, item.lease_id, item.reason);
      }
      return null;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      // A skip has no id of its own: after a lost answer the second one finds the lease gone, and
      // in every other case of a lost lease there is nothing left to skip either.
      return item.kind === 'skip' && error.leaseLost ? null : error;
    }
  }

  /** The log may have holes (a browser that forgot); the masks are worth more than the log. */
  async #submit(taskId: string, leaseId: string, submission: Submission): Promise<void> {
    try {
      await this.#o.api.submit(taskId, leaseId, submission);
    } catch (error) {
      const missing = error instanceof ApiError ? error.details['missing'] : null;
      if (!Array.isArray(missing)) throw error;
      const at_ms = this.#o.clock.now();
      const hole = { at_ms, kind: 'lost', object_id: null, data: {} };
      const holes = (missing as number[]).map((seq) => ({ ...hole, seq }));
      const events = [...submission.events, ...holes].sort((a, b) => a.seq - b.seq);
      await this.#o.api.submit(taskId, leaseId, { ...submission, events });
    }
  }

  async #sent(item: OutboxItem): Promise<void> {
    const events = item.kind === 'verdicts' ? [] : await forgetEvents(this.#o.store, item.task_id);
    await this.#o.store.write([{ delete: 'outbox', key: item.id }, ...events]);
    this.#items = this.#items.filter((one) => one.id !== item.id);
    this.#unsafe.delete(item.id);
    this.#o.onsent?.(item);
    this.#tell();
  }

  #retryLater(error: ApiError): void {
    this.#failures += 1;
    this.#error = error;
    const wait = backoffMs(this.#failures, (this.#o.random ?? Math.random)(), error.retryAfterMs);
    this.#cancelTimer = this.#o.clock.after(wait, () => void this.#run());
    this.#tell();
  }

  #tell(): void {
    const refused = this.#items.filter((item) => item.refused);
    const waiting = this.#items.length - refused.length;
    const unsafe = this.#items.filter((item) => this.#unsafe.has(item.id)).length;
    this.#o.onstate?.({ waiting, refused, sending: this.#sending, error: this.#error, unsafe });
  }
}

/** Events of earlier visits are worth sending, and never worth holding a submission back. */
async function sendEarlierVisits(
  store: Store,
  api: Pick<Api, 'sendEvents'>,
  taskId: string,
  lease: string,
  pageId: string,
): Promise<void> {
  try {
    await sendLeftEvents(store, api, taskId, lease, pageId);
  } catch (error) {
    if (!(error instanceof ApiError) || error.temporary || error.signedOut) throw error;
    console.warn('maskwheel: events of an earlier visit were refused', error.message);
  }
}
