// One behaviour for every store; IndexedDB is the fake of the same specification.

import { IDBFactory, IDBKeyRange } from 'fake-indexeddb';
import { describe, expect, it, vi } from 'vitest';
import { MemoryStore, openStore, type Store } from '../../src/lib/sync/store';

vi.stubGlobal('IDBKeyRange', IDBKeyRange);

const stores: [string, () => Promise<Store>][] = [
  ['IndexedDB', () => openStore('ann', new IDBFactory())],
  ['memory', async () => new MemoryStore()],
];

describe.each(stores)('%s', (_name, open) => {
  it('gives back what was written', async () => {
    const store = await open();
    await store.write([{ put: 'drafts', key: '1', value: { a: [1, 2] } }]);
    expect(await store.get('drafts', '1')).toEqual({ a: [1, 2] });
    expect(await store.get('drafts', '2')).toBeUndefined();
    await store.write([{ delete: 'drafts', key: '1' }]);
    expect(await store.get('drafts', '1')).toBeUndefined();
  });

  it('lists by prefix in the order of keys', async () => {
    const store = await open();
    const keys = ['1/b', '1/a', '11/a', '2/a'];
    await store.write(keys.map((key) => ({ put: 'events', key, value: { key } })));
    expect(await store.list('events', '1/')).toEqual([{ key: '1/a' }, { key: '1/b' }]);
    expect(await store.list('events')).toHaveLength(4);
  });

  it('writes to several tables in one step', async () => {
    const store = await open();
    await store.write([{ put: 'drafts', key: '1', value: {} }]);
    await store.write([
      { put: 'outbox', key: 's', value: { done: true } },
      { delete: 'drafts', key: '1' },
    ]);
    expect(await store.get('drafts', '1')).toBeUndefined();
    expect(await store.list('outbox')).toEqual([{ done: true }]);
  });

  it('keeps its own copy', async () => {
    const store = await open();
    const value = { objects: [1] };
    await store.write([{ put: 'drafts', key: '1', value }]);
    value.objects.push(2);
    expect(await store.get('drafts', '1')).toEqual({ objects: [1] });
  });
});

it('a reopened IndexedDB still has everything, and each person their own', async () => {
  const factory = new IDBFactory();
  const first = await openStore('ann', factory);
  await first.write([{ put: 'outbox', key: 's', value: { id: 's' } }]);
  first.close();
  expect(await (await openStore('ann', factory)).list('outbox')).toEqual([{ id: 's' }]);
  expect(await (await openStore('bob', factory)).list('outbox')).toEqual([]);
});

it('a write that fails leaves nothing behind', async () => {
  const store = await openStore('ann', new IDBFactory());
  const bad = store.write([
    { put: 'drafts', key: '1', value: {} },
    { put: 'drafts', key: '2', value: { cannot: () => 'be stored' } },
  ]);
  await expect(bad).rejects.toThrow();
  expect(await store.list('drafts')).toEqual([]);
});

it('a browser that refuses IndexedDB gets a store that says it keeps nothing', async () => {
  const warn = vi.spyOn(console, 'warn').mockImplementation(() => undefined);
  const refusing = {
    open: () => {
      throw new DOMException('denied', 'SecurityError');
    },
  } as unknown as IDBFactory;
  expect((await openStore('ann', refusing)).durable).toBe(false);
  expect(warn).toHaveBeenCalledOnce();
  expect((await openStore('ann', new IDBFactory())).durable).toBe(true);
});
