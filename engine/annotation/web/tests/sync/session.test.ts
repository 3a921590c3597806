// One task from lease to outbox: heartbeat, idle people, lost leases, reloads in the middle.

import { expect, it } from 'vitest';
import { Heartbeat } from '../../src/lib/sync/heartbeat';
import { Outbox } from '../../src/lib/sync/outbox';
import { Prefetch } from '../../src/lib/sync/prefetch';
import { MemoryStore } from '../../src/lib/sync/store';
import { TaskSession } from '../../src/lib/sync/task_session';
import type { Upcoming } from '../../src/lib/types';
import { FakeClock, settle } from './fake_clock';
import { draftOf, FakeService, leaseOf, taskOf } from './fake_service';

function setUp(service = new FakeService(), store = new MemoryStore()) {
  const clock = new FakeClock();
  const lost: string[] = [];
  const { api } = service;
  const outbox = new Outbox({ store, clock, api, random: () => 1 });
  const session = new TaskSession({
    ...{ store, clock, api, outbox, lease: leaseOf(taskOf(service.draft)), random: () => 1 },
    onlost: () => lost.push('lost'),
  });
  return { service, store, clock, outbox, session, lost };
}

const paths = (service: FakeService, action: string) =>
  service.requests.filter((line) => line.endsWith(`/${action}`)).length;

it('a finished task leaves with all its events and takes its draft along', async () => {
  const { service, store, session, clock } = setUp();
  await session.begin();
  session.record({ kind: 'click', object_id: 'a', data: { x: 1 } });
  session.change(draftOf('a'));
  await clock.advance(1_000);
  await session.submit(draftOf('a'));
  await clock.advance(1_000);
  const [submission] = [...service.submissions.values()];
  expect(submission).toMatchObject({ ...draftLess('a'), last_seq: 3 });
  expect(submission?.events.map(({ kind }) => kind)).toEqual(['open', 'click', 'submit']);
  expect(await store.list('drafts')).toEqual([]);
  expect(await store.list('events')).toEqual([]);
  await clock.advance(600_000);
  expect(paths(service, 'heartbeat')).toBe(0);
});

it('the network dies, the page reloads, and the work arrives once', async () => {
  const before = setUp();
  await before.session.begin();
  before.service.mode = 'down';
  before.session.record({ kind: 'click', object_id: 'a', data: {} });
  before.session.change(draftOf('a'));
  await settle(); // here the tab dies
  const after = setUp(before.service, before.store);
  expect(await after.session.begin()).toEqual({ from: 'browser', draft: draftOf('a') });
  await after.session.submit(draftOf('a', 'b'));
  await after.clock.advance(5_000);
  after.outbox.close(); // and dies again
  before.service.mode = 'up';
  const last = setUp(before.service, before.store);
  await last.outbox.open();
  await last.clock.advance(1_000);
  expect(before.service.submissions.size).toBe(1);
  // The events of the first visit went before, under their own page.
  expect([...before.service.events.values()].map(({ kind }) => kind)).toEqual(['open', 'click']);
  expect(await last.store.list('events')).toEqual([]);
});

it('beats three times per lease and stops when the task ends', async () => {
  const { service, session, clock } = setUp();
  await session.begin();
  await clock.advance(119_000);
  expect(paths(service, 'heartbeat')).toBe(2);
  session.stop();
  await clock.advance(600_000);
  expect(paths(service, 'heartbeat')).toBe(2);
});

it('a lost lease is told once and nothing more is sent', async () => {
  const { service, session, clock, lost } = setUp();
  await session.begin();
  await clock.advance(3_000);
  service.lease = 'another';
  session.change(draftOf('a'));
  await clock.advance(50_000);
  expect(lost).toEqual(['lost']);
  expect(session.lost).toBe(true);
  const before = service.requests.length;
  session.change(draftOf('a', 'b'));
  await clock.advance(600_000);
  expect(service.requests.length).toBe(before);
});

it('a dead network is not a lost lease', async () => {
  const { service, session, clock, lost } = setUp();
  await session.begin();
  service.mode = 'down';
  await clock.advance(600_000);
  service.mode = 'up';
  await clock.advance(60_000);
  expect(lost).toEqual([]);
});

it('somebody who left lets the lease go, and asks for it when back', async () => {
  const clock = new FakeClock();
  const service = new FakeService();
  const heart = new Heartbeat({
    ...{ api: service.api, clock, taskId: '7', seconds: 120, lease: () => 'lease-1' },
  });
  heart.start();
  await clock.advance(60 * 60_000);
  const beats = paths(service, 'heartbeat');
  expect(beats).toBeLessThanOrEqual(23);
  heart.active();
  await settle();
  expect(paths(service, 'heartbeat')).toBe(beats + 1);
  heart.stop();
});

it('the next images and embeddings are fetched once, one after the other', async () => {
  const fetched: string[] = [];
  const calls: string[] = [];
  const image = (id: string) => ({
    ...{ id, width: 1, height: 1, pixels: `/p${id}`, preview: `/v${id}`, embedding: `/e${id}` },
  });
  const upcoming: Upcoming[] = ['1', '2', '3'].map((id) => ({ image: image(id), decoder: '/d' }));
  const prefetch = new Prefetch({
    api: {
      upcoming: async () => upcoming,
      bytes: async (path) => {
        calls.push(path);
        return new ArrayBuffer(1);
      },
    },
    onfetched: (url) => fetched.push(url),
  });
  await prefetch.start('c');
  await prefetch.start('c');
  expect(fetched).toEqual(['/d', '/v1', '/p1', '/e1', '/v2', '/p2', '/e2']);
  expect(calls).toEqual(fetched);
});

it('embeddings are left where they are when the service decodes', async () => {
  const calls: string[] = [];
  const image = { id: '1', width: 1, height: 1, pixels: '/p', preview: '/v', embedding: '/e' };
  const prefetch = new Prefetch({
    api: {
      upcoming: async () => [{ image, decoder: '/d' }],
      bytes: async (path) => {
        calls.push(path);
        return new ArrayBuffer(1);
      },
    },
  });
  expect(await prefetch.start('c', false)).toHaveLength(1);
  expect(calls).toEqual(['/d', '/v', '/p']);
});

function draftLess(...ids: string[]) {
  const { objects, deleted, exhaustive } = draftOf(...ids);
  return { objects, deleted, exhaustive };
}
