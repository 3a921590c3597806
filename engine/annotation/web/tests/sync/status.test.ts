// The status line says first what is in danger.

import { expect, it } from 'vitest';
import { backoffMs } from '../../src/lib/sync/backoff';
import { newId } from '../../src/lib/sync/clock';
import { statusLine, type SyncState } from '../../src/lib/sync/status';
import { ApiError } from '../../src/lib/api';

const fine: SyncState = {
  online: true,
  durable: true,
  signedOut: false,
  draft: { kind: 'saved' },
  unsentEvents: 0,
  outbox: { waiting: 0, refused: [], sending: false, error: null, unsafe: 0 },
};
const network = new ApiError(0, 'network', 'no');

it.each<[Partial<SyncState>, string, string]>([
  [{}, 'good', 'Saved'],
  [{ draft: { kind: 'saving' } }, 'busy', 'Saving…'],
  [{ online: false }, 'warn', 'Offline · all work is sent'],
  [
    {
      online: false,
      draft: { kind: 'waiting', error: network },
      unsentEvents: 14,
      outbox: { waiting: 2, refused: [], sending: false, error: network, unsafe: 0 },
    },
    'warn',
    'Offline · 2 finished images, a draft and 14 events kept in this browser',
  ],
  [
    { draft: { kind: 'waiting', error: network } },
    'warn',
    'No answer from the service · a draft kept in this browser',
  ],
  [
    { outbox: { waiting: 1, refused: [], sending: true, error: null, unsafe: 0 } },
    'busy',
    'Handing in 1 image…',
  ],
  [{ durable: false }, 'warn', 'This browser keeps no drafts: do not close the tab'],
  [
    { draft: { kind: 'lost' }, online: false },
    'bad',
    'This image is no longer yours; work kept in this browser',
  ],
])('%j is %s: %s', (change, tone, text) => {
  expect(statusLine({ ...fine, ...change })).toEqual({ tone, text });
});

it('pauses between attempts double up to a minute, with jitter, and never undercut the service', () => {
  expect([1, 2, 3, 7, 50].map((n) => backoffMs(n, 0.999999))).toEqual([
    1000, 2000, 4000, 60000, 60000,
  ]);
  expect(backoffMs(1, 0)).toBe(500);
  expect(backoffMs(1, 0, 9_000)).toBe(9_000);
});

it('ids are random UUIDs of version 4', () => {
  const ids = Array.from({ length: 100 }, newId);
  expect(new Set(ids).size).toBe(100);
  for (const id of ids) {
    expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  }
});
