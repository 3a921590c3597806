// Everything that happens between the page and the service while one task is open: draft, events,
// heartbeat, and in the end the hand-over to the outbox.
//   const session = new TaskSession({ lease, store, api, clock, outbox, ... });
//   const start = await session.begin();

import { ApiError, type Api } from '../api';
import type { EditorDraft, EditorEvent, Lease } from '../types';
import { newId, type Clock } from './clock';
import { DraftKeeper, type DraftState, type Start } from './drafts';
import { EventLog, forgetEvents, sendLeftEvents } from './events';
import { Heartbeat } from './heartbeat';
import type { Outbox } from './outbox';
import type { Store } from './store';

export interface TaskSessionOptions {
  lease: Lease;
  store: Store;
  api: Pick<Api, 'saveDraft' | 'sendEvents' | 'heartbeat' | 'giveBack'>;
  clock: Clock;
  outbox: Outbox;
  /** In a review drafts are not kept: the verdicts are few, and the masks are somebody else's. */
  keepDraft?: boolean;
  random?: () => number;
  ondraft?: (state: DraftState) => void;
  onevents?: (unsent: number) => void;
  onlost?: () => void;
}

export class TaskSession {
  readonly #o: TaskSessionOptions;
  readonly events: EventLog;
  readonly drafts: DraftKeeper | null;
  readonly heart: Heartbeat;
  #lost = false;

  constructor(options: TaskSessionOptions) {
    this.#o = options;
    const { lease, store, api, clock } = options;
    const shared = { store, api, clock, lease: () => lease.lease_id };
    const chance = options.random ? { random: options.random } : {};
    this.events = new EventLog({
      ...shared,
      ...chance,
      taskId: lease.task.id,
      oncount: (unsent) => options.onevents?.(unsent),
      onerror: (error) => this.#maybeLost(error),
    });
    this.drafts =
      options.keepDraft === false
        ? null
        : new DraftKeeper({
            ...shared,
            ...chance,
            task: lease.task,
            onstate: (state) => {
              if (state.kind === 'lost') this.#lose();
              options.ondraft?.(state);
            },
          });
    this.heart = new Heartbeat({
      ...shared,
      taskId: lease.task.id,
      seconds: lease.seconds,
      onlost: () => this.#lose(),
    });
  }

  get lost(): boolean {
    return this.#lost;
  }

  /** Where to go on from. Old events of this task are sent beside. */
  async begin(): Promise<Start> {
    this.heart.start();
    const start: Start = this.drafts ? await this.drafts.begin() : { from: 'nothing', draft: null };
    this.events.add('open', null, { from: start.from });
    void this.#sendLeftEvents();
    return start;
  }

  change(draft: EditorDraft): void {
    this.heart.active();
    this.drafts?.change(draft); // kept in the browser even when the lease is gone
  }

  record(event: EditorEvent): void {
    if (event.kind !== 'idle') this.heart.active();
    this.events.add(event.kind, event.object_id, event.data);
  }

  /** Somebody moves the mouse or types: the lease is worth keeping. */
  active(): void {
    this.heart.active();
  }

  /** The network is back or the tab is seen again. */
  async wake(): Promise<void> {
    await Promise.all([this.heart.beat(), this.drafts?.flush(), this.events.flush()]);
  }

  /** The tab is hidden or about to go. */
  async rest(): Promise<void> {
    await Promise.all([this.drafts?.flush(), this.events.flush()]);
  }

  /** Hands the finished task to the outbox. When it resolves, the work is safe in the browser. */
  async submit(draft: EditorDraft): Promise<void> {
    const { lease, outbox } = this.#o;
    this.events.add('submit', null, { objects: draft.objects.length });
    const submission = {
      submission_id: newId(),
      objects: draft.objects,
      deleted: draft.deleted,
      exhaustive: draft.exhaustive,
      page_id: this.events.pageId,
      last_seq: this.events.lastSeq,
      events: [...this.events.unsent],
    };
    this.stop();
    const item = {
      ...this.#finished(submission.submission_id),
      kind: 'submit' as const,
      submission,
    };
    await outbox.add(item, [{ delete: 'drafts', key: lease.task.id }]);
  }

  async skip(reason: string): Promise<void> {
    this.events.add('skip', null, { reason });
    await this.events.flush();
    this.stop();
    const also = [
      { delete: 'drafts' as const, key: this.#o.lease.task.id },
      ...(await forgetEvents(this.#o.store, this.#o.lease.task.id)),
    ];
    await this.#o.outbox.add({ ...this.#finished(newId()), kind: 'skip', reason }, also);
  }

  /** Leaves the task for somebody else; what was done stays as the service's draft. */
  async giveBack(): Promise<void> {
    await this.rest();
    this.stop();
    try {
      await this.#o.api.giveBack(this.#o.lease.task.id, this.#o.lease.lease_id);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error; // the lease ends by itself
    }
  }

  stop(): void {
    this.drafts?.stop();
    this.events.stop();
    this.heart.stop();
  }

  #finished(id: string) {
    const { lease, clock } = this.#o;
    return {
      id,
      task_id: lease.task.id,
      campaign_id: lease.task.campaign.id,
      lease_id: lease.lease_id,
      image_id: lease.task.image.id,
      made_at_ms: clock.now(),
      refused: null,
    };
  }

  async #sendLeftEvents(): Promise<void> {
    const { store, api, lease } = this.#o;
    try {
      await sendLeftEvents(store, api, lease.task.id, lease.lease_id, this.events.pageId);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error; // tried again with the submission
    }
  }

  #maybeLost(error: ApiError): void {
    if (error.leaseLost) this.#lose();
  }

  #lose(): void {
    if (this.#lost) return;
    this.#lost = true;
    this.heart.stop();
    this.#o.onlost?.();
  }
}
