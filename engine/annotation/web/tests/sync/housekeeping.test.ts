// What is weeks old goes; finished work never does.

import { expect, it } from 'vitest';
import { forgetOld } from '../../src/lib/sync/housekeeping';
import { MemoryStore } from '../../src/lib/sync/store';

const DAY_MS = 24 * 3600_000;

it('old drafts and events are forgotten, and nothing else', async () => {
  const store = new MemoryStore();
  const now = 100 * DAY_MS;
  const event = (seq: number, days: number) => ({
    put: 'events' as const,
    key: `7/p/00000000${seq}`,
    value: { task_id: '7', page_id: 'p', event: { seq, at_ms: now - days * DAY_MS } },
  });
  const draft = (task_id: string, days: number) => ({
    put: 'drafts' as const,
    key: task_id,
    value: { task_id, saved_at_ms: now - days * DAY_MS },
  });
  const finished = { put: 'outbox' as const, key: 's', value: { id: 's', made_at_ms: 0 } };
  await store.write([event(1, 40), event(2, 3), draft('6', 31), draft('7', 29), finished]);
  await forgetOld(store, now);
  expect(await store.list('events')).toMatchObject([{ event: { seq: 2 } }]);
  expect(await store.list('drafts')).toMatchObject([{ task_id: '7' }]);
  expect(await store.list('outbox')).toHaveLength(1);
});
