// Finished work: safe before the page goes on, sent until acknowledged, never doubled, never dropped.

import { expect, it, vi } from 'vitest';
import { Outbox, type OutboxItem, type OutboxState } from '../../src/lib/sync/outbox';
import { MemoryStore, type Store } from '../../src/lib/sync/store';
import { FakeClock, settle } from './fake_clock';
import { draftOf, FakeService } from './fake_service';

function setUp(service = new FakeService(), store: Store = new MemoryStore()) {
  const clock = new FakeClock();
  const states: OutboxState[] = [];
  const sent: string[] = [];
  const outbox = new Outbox({
    store,
    clock,
    api: service.api,
    random: () => 1,
    onstate: (state) => states.push(structuredClone({ ...state, error: null })),
    onsent: (item) => sent.push(item.id),
  });
  return { service, store, clock, states, sent, outbox };
}

function item(id: string, taskId = '7', more: Partial<OutboxItem> = {}): OutboxItem {
  return {
    ...{ id, task_id: taskId, campaign_id: 'c', lease_id: 'lease-1', image_id: '9' },
    ...{ made_at_ms: Number(id.replace(/\D/g, '')), refused: null, kind: 'submit' as const },
    submission: {
      ...{ submission_id: id, objects: draftOf('a').objects, deleted: [], exhaustive: false },
      ...{ page_id: 'p', last_seq: 0, events: [] },
    },
    ...more,
  } as OutboxItem;
}

it('a finished task is sent once and forgotten', async () => {
  const { outbox, service, store, sent } = setUp();
  await outbox.open();
  await outbox.add(item('s1'));
  await settle();
  expect([...service.submissions.keys()]).toEqual(['s1']);
  expect(await store.list('outbox')).toEqual([]);
  expect(sent).toEqual(['s1']);
});

it('the draft goes in the same step in which the finished task is kept', async () => {
  const { outbox, service, store } = setUp();
  service.mode = 'down';
  await store.write([{ put: 'drafts', key: '7', value: { any: 1 } }]);
  await outbox.add(item('s1'), [{ delete: 'drafts', key: '7' }]);
  expect(await store.get('drafts', '7')).toBeUndefined();
  expect(await store.list('outbox')).toHaveLength(1);
});

it('a dead network delays and does not double', async () => {
  const { outbox, service, clock, states } = setUp();
  service.mode = 'down';
  await outbox.open();
  await outbox.add(item('s1'));
  await clock.advance(20_000);
  expect(states.at(-1)).toMatchObject({ waiting: 1, sending: false });
  expect(outbox.tasksOf('c')).toEqual(['7']);
  service.mode = 'lose-answers'; // it arrives, and the page does not hear of it
  await clock.advance(60_000);
  service.mode = 'up';
  await clock.advance(60_000);
  expect([...service.submissions.keys()]).toEqual(['s1']);
  expect(service.requests.filter((line) => line.endsWith('/submit')).length).toBeGreaterThan(1);
  expect(states.at(-1)).toMatchObject({ waiting: 0 });
});

it('the pauses between attempts grow to a minute', async () => {
  const { outbox, service, clock } = setUp();
  service.mode = 'down';
  await outbox.open();
  await outbox.add(item('s1'));
  await settle();
  const pauses: (number | null)[] = [];
  for (let i = 0; i < 8; i++) {
    pauses.push(clock.next);
    await clock.advance(clock.next ?? 0);
  }
  expect(pauses).toEqual([1, 2, 4, 8, 16, 32, 60, 60].map((seconds) => seconds * 1000));
});

it('the network that comes back is used at once', async () => {
  const { outbox, service, clock } = setUp();
  service.mode = 'down';
  await outbox.open();
  await outbox.add(item('s1'));
  await clock.advance(100_000);
  service.mode = 'up';
  outbox.resume();
  await settle();
  expect(service.submissions.size).toBe(1);
});

it('a reload sends what the page before it could not', async () => {
  const before = setUp();
  before.service.mode = 'down';
  await before.outbox.open();
  await before.outbox.add(item('s1'));
  before.outbox.close();
  before.service.mode = 'up';
  const after = setUp(before.service, before.store);
  await after.outbox.open();
  await settle();
  expect([...before.service.submissions.keys()]).toEqual(['s1']);
  expect(await after.store.list('outbox')).toEqual([]);
});

it('what is refused for good is kept and shown, and the others go on', async () => {
  const { outbox, service, store, states, clock } = setUp();
  service.scripted.set('verdicts', { status: 422, body: { code: 'invalid', message: 'no' } });
  service.mode = 'down';
  await outbox.open();
  const verdicts = { kind: 'verdicts', verdicts: { submission_id: 'v1', verdicts: [] } } as object;
  await outbox.add(item('v1', '6', verdicts));
  await outbox.add(item('s2'));
  service.mode = 'up';
  await clock.advance(5_000);
  expect(service.submissions.size).toBe(1);
  expect(states.at(-1)).toMatchObject({ waiting: 0, refused: [{ id: 'v1' }] });
  expect(await store.get('outbox', 'v1')).toMatchObject({ refused: { message: 'no' } });
  await outbox.discard('v1');
  expect(await store.list('outbox')).toEqual([]);
});

it('an item that the service stumbles over does not hold up the next', async () => {
  const { outbox, service, clock } = setUp();
  service.scripted.set('verdicts', { status: 500, body: { code: 'internal', message: 'oops' } });
  service.mode = 'down';
  await outbox.open();
  const verdicts = { kind: 'verdicts', verdicts: { submission_id: 'v1', verdicts: [] } } as object;
  await outbox.add(item('v1', '6', verdicts));
  await outbox.add(item('s2'));
  service.mode = 'up';
  await clock.advance(5_000);
  expect([...service.submissions.keys()]).toEqual(['s2']);
  expect(outbox.tasksOf('c')).toEqual(['6']);
});

it('an image that somebody else got meanwhile is told and not sent again', async () => {
  const { outbox, service, states, clock } = setUp();
  service.lease = 'another';
  await outbox.open();
  await outbox.add(item('s1'));
  await clock.advance(600_000);
  expect(states.at(-1)?.refused[0]).toMatchObject({ refused: { code: 'lease_lost' } });
  expect(service.requests).toHaveLength(1);
});

it('a task that is given again to the same person takes its finished work along', async () => {
  const { outbox, service, clock } = setUp();
  service.mode = 'down';
  await outbox.open();
  await outbox.add(item('s1'));
  await settle();
  service.lease = 'lease-2';
  service.mode = 'up';
  expect(await outbox.rebind('7', 'lease-2')).toBe(true);
  expect(await outbox.rebind('8', 'lease-2')).toBe(false);
  await clock.advance(0);
  await settle();
  expect([...service.submissions.keys()]).toEqual(['s1']);
});

it('a skip whose answer was lost counts as done', async () => {
  const { outbox, service, clock, states } = setUp();
  await outbox.open();
  service.mode = 'lose-answers';
  await outbox.add(item('k1', '7', { kind: 'skip', reason: 'too dark' } as Partial<OutboxItem>));
  await settle();
  service.mode = 'up';
  await clock.advance(60_000);
  expect(service.skipped).toEqual(['too dark']);
  expect(states.at(-1)).toMatchObject({ waiting: 0, refused: [] });
});

it('an ended session pauses the outbox until somebody signs in', async () => {
  const { outbox, service, clock, states } = setUp();
  service.scripted.set('submit', { status: 401, body: { code: 'no_session', message: 'sign in' } });
  await outbox.open();
  await outbox.add(item('s1'));
  await clock.advance(5_000);
  expect(states.at(-1)).toMatchObject({ waiting: 1, refused: [] });
  service.scripted.clear();
  outbox.resume();
  await settle();
  expect(service.submissions.size).toBe(1);
});

it('holes in the log do not cost the masks', async () => {
  const { outbox, service } = setUp();
  const seen: unknown[] = [];
  const real = service.api.submit.bind(service.api);
  service.api.submit = async (taskId, lease, submission) => {
    seen.push(submission.events.map(({ seq, kind }) => [seq, kind]));
    if (seen.length === 1) {
      const body = { code: 'missing_events', message: 'holes', missing: [2] };
      service.scripted.set('submit', { status: 409, body });
    } else service.scripted.clear();
    return real(taskId, lease, submission);
  };
  const event = { seq: 3, at_ms: 1, kind: 'click', object_id: 'a', data: {} };
  const one = item('s1');
  if (one.kind === 'submit') Object.assign(one.submission, { last_seq: 3, events: [event] });
  await outbox.open();
  await outbox.add(one);
  await settle();
  expect(seen).toEqual([
    [[3, 'click']],
    [
      [2, 'lost'],
      [3, 'click'],
    ],
  ]);
  expect(service.submissions.size).toBe(1);
});

it('a browser that cannot store sends all the same and says what is at stake', async () => {
  const { outbox, service, states, clock, store } = setUp();
  const said = vi.spyOn(console, 'error').mockImplementation(() => undefined);
  service.mode = 'down';
  await outbox.open();
  store.write = () => Promise.reject(new DOMException('full', 'QuotaExceededError'));
  await outbox.add(item('s1'));
  await settle();
  expect(states.at(-1)).toMatchObject({ waiting: 1, unsafe: 1 });
  expect(said).toHaveBeenCalled();
  service.mode = 'up';
  store.write = () => Promise.resolve();
  await clock.advance(2_000);
  expect([...service.submissions.keys()]).toEqual(['s1']);
  expect(states.at(-1)).toMatchObject({ waiting: 0, unsafe: 0 });
});
