// One person's way through a campaign: lease, work, hand in, next. The component shows its state.
//   const annotating = new Annotating(connection, campaignId);  void annotating.queue.take();

import type { Connection } from './connection.svelte';
import { Decoders } from './decoders.svelte';
import { browserClock } from './sync/clock';
import type { Start } from './sync/drafts';
import { Prefetch } from './sync/prefetch';
import { TaskSession } from './sync/task_session';
import { TaskQueue } from './task_queue.svelte';
import type { Draft, EditorDraft, Lease } from './types';

/** The task at hand. `start` is set while the person has to choose between two drafts. */
export interface Desk {
  lease: Lease;
  session: TaskSession;
  draft: EditorDraft | null;
  from: 'nothing' | 'service' | 'browser';
  choice: (Start & { from: 'both' }) | null;
  /** Counts editors: a new one begins with what it is given. */
  edition: number;
}

export class Annotating {
  desk = $state.raw<Desk | null>(null);
  lost = $state(false);
  /** The task is handed in and the next one is on its way. */
  leaving = $state(false);
  /** Tasks that this visit finished. */
  finished = $state(0);
  readonly queue: TaskQueue<Lease>;
  readonly decoders: Decoders;
  readonly #prefetch: Prefetch;
  #latest: EditorDraft | null = null;
  #editions = 0;

  constructor(
    private readonly connection: Connection,
    private readonly campaignId: string,
  ) {
    const { api } = connection;
    this.queue = new TaskQueue(
      connection,
      campaignId,
      (finished) => api.next(campaignId, finished),
      (lease) => this.#begin(lease),
    );
    this.decoders = new Decoders(api, () => this.desk?.lease.lease_id ?? '');
    this.#prefetch = new Prefetch({ api, saveData: savesData() });
  }

  /** What the person chose of two drafts: the browser's, or the service's. */
  async choose(which: 'browser' | 'service'): Promise<void> {
    const { desk } = this;
    if (!desk?.choice) return;
    const service = desk.lease.task.draft;
    const draft = which === 'service' ? desk.choice.service : desk.choice.browser;
    this.#edit({ ...desk, draft, from: which, choice: null });
    if (which === 'service' && service) await desk.session.drafts?.adopt(service);
    else await desk.session.drafts?.overwrite(service?.version ?? 0, desk.choice.browser);
  }

  /** The same in the middle of the work, when another tab had changed the draft. */
  async resolveConflict(which: 'browser' | 'service', service: Draft): Promise<void> {
    const { desk } = this;
    if (!desk) return;
    if (which === 'browser') {
      await desk.session.drafts?.overwrite(service.version, this.#latest ?? service);
    } else {
      this.#edit({ ...desk, draft: service, from: 'service' });
      await desk.session.drafts?.adopt(service);
    }
  }

  changed(draft: EditorDraft): void {
    this.#latest = draft;
    this.desk?.session.change(draft);
  }

  submit(draft: EditorDraft): Promise<void> {
    return this.#finish((session) => session.submit(draft));
  }

  skip(reason: string): Promise<void> {
    return this.#finish((session) => session.skip(reason));
  }

  wake(): void {
    this.queue.wake();
    void this.desk?.session.wake();
  }

  rest(): void {
    void this.desk?.session.rest();
  }

  /** The page goes elsewhere: an untouched image is free for others at once. */
  close(): void {
    this.queue.close();
    this.#prefetch.stop();
    this.decoders.dispose();
    const session = this.desk?.session;
    if (session && !this.#latest && !session.lost) void session.giveBack();
    else if (session) void session.rest().finally(() => session.stop());
    this.#forget();
  }

  async #finish(handOver: (session: TaskSession) => Promise<void>): Promise<void> {
    const session = this.desk?.session;
    if (!session || this.leaving) return;
    this.leaving = true;
    try {
      await handOver(session);
      this.finished += 1;
      this.#forget();
      await this.queue.take();
    } finally {
      this.leaving = false;
    }
  }

  async #begin(lease: Lease): Promise<void> {
    const { api, outbox, store } = this.connection;
    this.desk?.session.stop();
    this.lost = false;
    const session = new TaskSession({
      ...{ lease, store, api, outbox, clock: browserClock },
      ondraft: (state) => (this.connection.draft = state),
      onevents: (unsent) => (this.connection.unsentEvents = unsent),
      onlost: () => (this.lost = true),
    });
    const start = await session.begin();
    if (this.queue.closed) return session.stop();
    this.connection.draft = { kind: start.from === 'browser' ? 'saving' : 'saved' };
    const edition = 0;
    if (start.from === 'both') {
      const from = 'browser';
      this.desk = { lease, session, draft: null, from, choice: start, edition };
    } else {
      const { draft, from } = start;
      this.#edit({ lease, session, draft, from, choice: null, edition });
    }
    void this.#prepare(lease);
  }

  #edit(desk: Desk): void {
    this.#editions += 1;
    this.#latest = desk.draft;
    this.desk = { ...desk, edition: this.#editions };
  }

  /** The model first; then what comes after this image. */
  async #prepare(lease: Lease): Promise<void> {
    await this.decoders.use(lease.task);
    if (this.queue.closed) return;
    const here = this.decoders.measured?.kind !== 'server';
    const [next] = await this.#prefetch.start(this.campaignId, here);
    if (next && next.decoder === lease.task.decoder) {
      await this.decoders.current?.prefetch(next.image).catch(() => undefined); // it waits, then
    }
  }

  #forget(): void {
    this.connection.draft = null;
    this.connection.unsentEvents = 0;
  }
}

function savesData(): boolean {
  const { connection } = navigator as Navigator & { connection?: { saveData?: boolean } };
  return connection?.saveData ?? false;
}
