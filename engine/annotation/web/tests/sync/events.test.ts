// The event log: numbered without gaps, kept until acknowledged, sent in batches, never blocking.

import { expect, it } from 'vitest';
import { EventLog, sendLeftEvents, type KeptEvent } from '../../src/lib/sync/events';
import { MemoryStore, type Store } from '../../src/lib/sync/store';
import { FakeClock, settle } from './fake_clock';
import { FakeService } from './fake_service';

function setUp(pageId = 'p1', service = new FakeService(), store: Store = new MemoryStore()) {
  const clock = new FakeClock();
  const counts: number[] = [];
  const errors: string[] = [];
  const log = new EventLog({
    store,
    clock,
    pageId,
    api: service.api,
    taskId: '7',
    lease: () => 'lease-1',
    random: () => 1,
    oncount: (unsent) => counts.push(unsent),
    onerror: (error) => errors.push(error.code),
  });
  return { log, service, store, clock, counts, errors };
}

it('events are sent together after a few seconds and then forgotten', async () => {
  const { log, service, store, clock, counts } = setUp();
  log.add('click', 'a', { x: 1 });
  log.add('undo');
  await settle();
  expect(await store.list('events')).toHaveLength(2);
  expect(service.requests).toEqual([]);
  await clock.advance(3_000);
  expect(service.requests).toEqual(['POST /api/tasks/7/events']);
  expect([...service.events.values()]).toMatchObject([
    { seq: 1, kind: 'click', object_id: 'a', data: { x: 1 } },
    { seq: 2, kind: 'undo', object_id: null },
  ]);
  expect(await store.list('events')).toEqual([]);
  expect(counts).toEqual([1, 2, 0]);
});

it('a dead network keeps them, in order and without doubles', async () => {
  const { log, service, store, clock } = setUp();
  service.mode = 'lose-answers';
  for (let i = 0; i < 5; i++) log.add('click');
  await clock.advance(3_000);
  service.mode = 'down';
  log.add('commit');
  await clock.advance(30_000);
  expect(log.unsent).toHaveLength(6);
  expect(await store.list('events')).toHaveLength(6);
  service.mode = 'up';
  await clock.advance(60_000);
  expect([...service.events.keys()]).toEqual([1, 2, 3, 4, 5, 6].map((seq) => `p1/${seq}`));
  expect(log.unsent).toHaveLength(0);
});

it('a long queue goes in batches', async () => {
  const { log, service, clock } = setUp();
  service.mode = 'down';
  for (let i = 0; i < 450; i++) log.add('click');
  await clock.advance(3_000);
  service.mode = 'up';
  await clock.advance(60_000);
  expect(service.requests).toHaveLength(3);
  expect(service.events.size).toBe(450);
});

it('a lost lease ends the sending and is told', async () => {
  const { log, service, clock, errors } = setUp();
  service.lease = 'another';
  log.add('click');
  await clock.advance(600_000);
  expect(errors).toEqual(['lease_lost']);
  expect(service.requests).toHaveLength(1);
  expect(log.unsent).toHaveLength(1);
});

it('what a reload cut off is sent by the next visit', async () => {
  const before = setUp();
  before.service.mode = 'down';
  before.log.add('click');
  before.log.add('commit');
  await before.clock.advance(3_000);
  before.log.stop();
  before.service.mode = 'up';
  const { service, store } = before;
  const after = setUp('p2', service, store);
  after.log.add('open');
  await settle();
  await sendLeftEvents(store, service.api, '7', 'lease-1', 'p2');
  expect([...service.events.keys()]).toEqual(['p1/1', 'p1/2']);
  const left = await store.list<KeptEvent>('events');
  expect(left.map(({ page_id }) => page_id)).toEqual(['p2']);
});

it('other tasks are left alone', async () => {
  const { store, service } = setUp();
  const event = { seq: 1, at_ms: 1, kind: 'click', object_id: null, data: {} };
  const value: KeptEvent = { task_id: '77', page_id: 'p', event };
  await store.write([{ put: 'events', key: '77/p/000000001', value }]);
  await sendLeftEvents(store, service.api, '7', 'lease-1', 'p2');
  expect(service.requests).toEqual([]);
});
