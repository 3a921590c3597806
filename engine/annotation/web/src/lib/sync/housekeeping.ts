// Forgets what nobody will ask for again: drafts and events of tasks that went to somebody else weeks ago.
// Finished work in the outbox is never forgotten.

import type { LocalDraft } from './drafts';
import { eventKey, type KeptEvent } from './events';
import type { Store, Write } from './store';

const OLD_MS = 30 * 24 * 3600_000;

export async function forgetOld(store: Store, nowMs: number): Promise<void> {
  const writes: Write[] = [];
  for (const draft of await store.list<LocalDraft>('drafts')) {
    const old = nowMs - draft.saved_at_ms > OLD_MS;
    if (old) writes.push({ delete: 'drafts', key: draft.task_id });
  }
  for (const { task_id, page_id, event } of await store.list<KeptEvent>('events')) {
    const old = nowMs - event.at_ms > OLD_MS;
    if (old) writes.push({ delete: 'events', key: eventKey(task_id, page_id, event.seq) });
  }
  await store.write(writes);
}
