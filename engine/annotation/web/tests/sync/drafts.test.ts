// Drafts: kept in the browser first, sent when the hand rests, never over somebody else's work.

import { describe, expect, it } from 'vitest';
import { DraftKeeper, type DraftState } from '../../src/lib/sync/drafts';
import { MemoryStore } from '../../src/lib/sync/store';
import type { Draft, EditorDraft } from '../../src/lib/types';
import { FakeClock, settle } from './fake_clock';
import { draftOf, FakeService, object, taskOf } from './fake_service';

function setUp(service = new FakeService(), store = new MemoryStore()) {
  const clock = new FakeClock();
  const states: DraftState[] = [];
  const keeper = new DraftKeeper({
    store,
    clock,
    api: service.api,
    task: taskOf(service.draft),
    lease: () => 'lease-1',
    random: () => 1,
    onstate: (state) => states.push(state),
  });
  return { service, store, clock, states, keeper };
}

const kinds = (states: DraftState[]) => states.map(({ kind }) => kind);

describe('a draft', () => {
  it('is in the browser at once and at the service when the hand rests', async () => {
    const { keeper, store, clock, service, states } = setUp();
    await keeper.begin();
    keeper.change(draftOf('a'));
    await settle();
    expect(await store.get('drafts', '7')).toMatchObject({ unsent: true, draft: draftOf('a') });
    expect(service.draft).toBeNull();
    await clock.advance(800);
    expect(service.draft).toMatchObject({ version: 1, ...draftOf('a') });
    expect(await store.get('drafts', '7')).toMatchObject({ unsent: false, base_version: 1 });
    expect(kinds(states)).toEqual(['saving', 'saved']);
  });

  it('is sent at most every five seconds while the hand never rests', async () => {
    const { keeper, clock, service } = setUp();
    await keeper.begin();
    for (let i = 0; i < 30; i++) {
      keeper.change(draftOf(`a${i}`));
      await clock.advance(500);
    }
    const puts = service.requests.filter((request) => request.startsWith('PUT')).length;
    expect(puts).toBeGreaterThanOrEqual(2);
    expect(puts).toBeLessThanOrEqual(4);
  });

  it('that changes while it is sent is sent again', async () => {
    const { keeper, clock, service, states } = setUp();
    await keeper.begin();
    keeper.change(draftOf('a'));
    const sending = keeper.flush();
    await Promise.resolve();
    keeper.change(draftOf('a', 'b'));
    await sending;
    await clock.advance(5_000);
    expect(service.draft).toMatchObject({ version: 2, ...draftOf('a', 'b') });
    expect(keeper.unsent).toBe(false);
    expect(kinds(states).at(-1)).toBe('saved');
  });

  it('waits out a dead network with growing pauses and loses nothing', async () => {
    const { keeper, clock, service, states } = setUp();
    await keeper.begin();
    service.mode = 'down';
    keeper.change(draftOf('a'));
    await clock.advance(800 + 1_000 + 2_000);
    expect(kinds(states).filter((kind) => kind === 'waiting')).toHaveLength(3);
    keeper.change(draftOf('a', 'b'));
    service.mode = 'up';
    await clock.advance(4_000);
    expect(service.draft).toMatchObject(draftOf('a', 'b'));
    expect(kinds(states).at(-1)).toBe('saved');
  });

  it('whose answer was lost is known again and not called a conflict', async () => {
    const { keeper, clock, service, states } = setUp();
    await keeper.begin();
    service.mode = 'lose-answers';
    keeper.change(draftOf('a'));
    await clock.advance(800);
    service.mode = 'up';
    keeper.change(draftOf('a', 'b'));
    await clock.advance(10_000);
    expect(service.draft).toMatchObject({ version: 2, ...draftOf('a', 'b') });
    expect(kinds(states)).not.toContain('conflict');
  });

  it('never overwrites another tab: the person decides', async () => {
    const { keeper, clock, service, states } = setUp();
    await keeper.begin();
    service.draft = { ...draftOf('theirs'), version: 5 };
    keeper.change(draftOf('mine'));
    await clock.advance(800);
    expect(states.at(-1)).toMatchObject({ kind: 'conflict', service: { version: 5 } });
    keeper.change(draftOf('mine', 'too'));
    await clock.advance(60_000);
    expect(service.draft).toMatchObject(draftOf('theirs'));
    await keeper.overwrite(5, draftOf('mine', 'too'));
    expect(service.draft).toMatchObject({ version: 6, ...draftOf('mine', 'too') });
  });

  it('can be given up for the one of the other tab', async () => {
    const { keeper, store, clock, service } = setUp();
    await keeper.begin();
    service.draft = { ...draftOf('theirs'), version: 5 };
    keeper.change(draftOf('mine'));
    await clock.advance(800);
    await keeper.adopt(service.draft);
    expect(await store.get('drafts', '7')).toMatchObject({ unsent: false, base_version: 5 });
    keeper.change(draftOf('theirs', 'more'));
    await clock.advance(800);
    expect(service.draft).toMatchObject({ version: 6, ...draftOf('theirs', 'more') });
  });

  it('stays in the browser when the lease is lost', async () => {
    const { keeper, store, clock, service, states } = setUp();
    await keeper.begin();
    service.lease = 'another';
    keeper.change(draftOf('a'));
    await clock.advance(120_000);
    expect(kinds(states).at(-1)).toBe('lost');
    expect(service.requests).toHaveLength(1);
    expect(await store.get('drafts', '7')).toMatchObject({ unsent: true, draft: draftOf('a') });
  });

  it('that the service refuses is told, and tried again with the next change only', async () => {
    const { keeper, clock, service, states } = setUp();
    await keeper.begin();
    service.scripted.set('draft', { status: 422, body: { code: 'invalid_mask', message: 'no' } });
    keeper.change(draftOf('a'));
    await clock.advance(60_000);
    expect(states.at(-1)).toMatchObject({ kind: 'refused', error: { message: 'no' } });
    expect(service.requests).toHaveLength(1);
    service.scripted.clear();
    keeper.change(draftOf('b'));
    await clock.advance(5_000);
    expect(service.draft).toMatchObject(draftOf('b'));
  });
});

describe('after a reload', () => {
  async function reload(
    local: EditorDraft | null,
    service: Draft | null,
    baseVersion = 0,
    change?: (fake: FakeService) => void,
  ) {
    const first = setUp();
    first.service.draft = baseVersion ? { ...draftOf('base'), version: baseVersion } : null;
    const before = setUp(first.service, first.store);
    await before.keeper.begin();
    before.service.mode = 'down';
    if (local) before.keeper.change(local);
    await settle();
    before.keeper.stop();
    before.service.mode = 'up';
    before.service.draft = service;
    change?.(before.service);
    return setUp(before.service, before.store);
  }

  it('the browser goes on with what the service never got', async () => {
    const after = await reload(draftOf('a'), null);
    expect(await after.keeper.begin()).toEqual({ from: 'browser', draft: draftOf('a') });
    await after.clock.advance(800);
    expect(after.service.draft).toMatchObject(draftOf('a'));
  });

  it('the service gives its draft where the browser has none', async () => {
    const after = await reload(null, { ...draftOf('s'), version: 3 });
    expect(await after.keeper.begin()).toEqual({ from: 'service', draft: draftOf('s') });
  });

  it('nothing is found where nothing was done', async () => {
    const after = await reload(null, null);
    expect(await after.keeper.begin()).toEqual({ from: 'nothing', draft: null });
  });

  it('the newer browser copy continues the same version of the service', async () => {
    const service = { ...draftOf('base'), version: 3 };
    const after = await reload(draftOf('base', 'b'), service, 3);
    expect(await after.keeper.begin()).toMatchObject({ from: 'browser' });
    await after.clock.advance(800);
    expect(after.service.draft).toMatchObject({ version: 4, ...draftOf('base', 'b') });
  });

  it('both are offered where both went on from the same version', async () => {
    const service = { ...draftOf('base', 'there'), version: 4 };
    const after = await reload(draftOf('base', 'here'), service, 3);
    expect(await after.keeper.begin()).toMatchObject({
      from: 'both',
      browser: draftOf('base', 'here'),
      service: draftOf('base', 'there'),
    });
  });

  it('a copy of another image under the same task number is not taken', async () => {
    const store = new MemoryStore();
    const value = { image_id: 'other', unsent: true, draft: draftOf('a') };
    await store.write([{ put: 'drafts', key: '7', value }]);
    const after = setUp(new FakeService(), store);
    expect(await after.keeper.begin()).toEqual({ from: 'nothing', draft: null });
  });

  it('a reload between the write and its answer is no conflict', async () => {
    const { keeper, service, store, clock } = setUp();
    await keeper.begin();
    service.mode = 'lose-answers';
    keeper.change(draftOf('a'));
    await clock.advance(800);
    keeper.change(draftOf('a', 'b'));
    await settle();
    keeper.stop();
    service.mode = 'up';
    const after = setUp(service, store);
    expect(await after.keeper.begin()).toEqual({ from: 'browser', draft: draftOf('a', 'b') });
  });
});

it('drafts that look the same to a person have the same digest', async () => {
  const { digest } = await import('../../src/lib/sync/drafts');
  expect(digest(draftOf('a'))).toBe(digest({ ...draftOf('a') }));
  const other = { ...draftOf('a'), objects: [object('a', '13')] };
  expect(digest(draftOf('a'))).not.toBe(digest(other));
  expect(digest(draftOf('a'))).not.toBe(digest({ ...draftOf('a'), exhaustive: true }));
});
