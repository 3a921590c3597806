// One reviewer's way through a campaign: look at what somebody made, judge each mask, hand in, next.
//   const reviewing = new Reviewing(connection, campaignId);  void reviewing.queue.take();

import type { Connection } from './connection.svelte';
import { Decoders } from './decoders.svelte';
import { openTask } from './editor/draft';
import type { EditorObject } from './editor/values';
import { browserClock, newId } from './sync/clock';
import { Judging } from './judging.svelte';
import { TaskSession } from './sync/task_session';
import { TaskQueue } from './task_queue.svelte';
import type { EditorDraft, ReviewLease } from './types';

export interface ReviewDesk {
  lease: ReviewLease;
  session: TaskSession;
  judging: Judging;
  /** The submission as the editor begins with it. */
  draft: EditorDraft;
  /** Its objects as the editor draws them: with their colours and numbers. */
  drawn: ReadonlyMap<string, EditorObject>;
}

export class Reviewing {
  desk = $state.raw<ReviewDesk | null>(null);
  lost = $state(false);
  leaving = $state(false);
  readonly queue: TaskQueue<ReviewLease>;
  readonly decoders: Decoders;

  constructor(
    private readonly connection: Connection,
    campaignId: string,
  ) {
    const { api } = connection;
    this.queue = new TaskQueue(
      connection,
      campaignId,
      (finished) => api.nextReview(campaignId, finished),
      (lease) => this.#begin(lease),
    );
    this.decoders = new Decoders(api, () => this.desk?.lease.lease_id ?? '');
  }

  /** Hands the verdicts to the outbox and goes on with the next submission. */
  async handIn(): Promise<void> {
    const { desk } = this;
    if (!desk || this.leaving || desk.judging.missing) return;
    this.leaving = true;
    try {
      const { lease, session, judging } = desk;
      const verdicts = { submission_id: newId(), ...judging.answer() };
      await session.rest();
      session.stop();
      await this.connection.outbox.add({
        ...{ id: verdicts.submission_id, task_id: lease.task.id, lease_id: lease.lease_id },
        ...{ campaign_id: lease.task.campaign.id, image_id: lease.task.image.id },
        ...{ made_at_ms: browserClock.now(), refused: null, kind: 'verdicts', verdicts },
      });
      this.connection.unsentEvents = 0;
      await this.queue.take();
    } finally {
      this.leaving = false;
    }
  }

  wake(): void {
    this.queue.wake();
    void this.desk?.session.wake();
  }

  close(): void {
    this.queue.close();
    this.decoders.dispose();
    const session = this.desk?.session;
    if (session && !session.lost) void session.giveBack();
    this.connection.unsentEvents = 0;
  }

  async #begin(lease: ReviewLease): Promise<void> {
    const { api, outbox, store } = this.connection;
    this.desk?.session.stop();
    this.lost = false;
    const session = new TaskSession({
      ...{ lease, store, api, outbox, clock: browserClock, keepDraft: false },
      onevents: (unsent) => (this.connection.unsentEvents = unsent),
      onlost: () => (this.lost = true),
    });
    await session.begin();
    if (this.queue.closed) return session.stop();
    const judging = new Judging(lease.submission);
    const draft = judging.draft();
    const { objects } = openTask(lease.task, draft, 'review').doc;
    const drawn = new Map(objects.map((object) => [object.id, object]));
    this.desk = { lease, session, judging, draft, drawn };
    void this.decoders.use(lease.task);
  }
}
