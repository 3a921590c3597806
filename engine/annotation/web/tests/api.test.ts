// The client: what it sends, and what becomes of every kind of answer.

import { expect, it, vi } from 'vitest';
import { Api, ApiError } from '../src/lib/api';

function answering(...responses: (Response | Error)[]) {
  const calls: [string, RequestInit][] = [];
  const onsignedout = vi.fn();
  const api = new Api({
    onsignedout,
    fetch: async (input, init) => {
      calls.push([String(input), init ?? {}]);
      const next = responses.shift();
      if (!next) throw new TypeError('Failed to fetch');
      if (next instanceof Error) throw next;
      return next;
    },
  });
  return { api, calls, onsignedout };
}

const json = (status: number, body: unknown, headers = {}) =>
  new Response(JSON.stringify(body), { status, headers });

async function errorOf(promise: Promise<unknown>): Promise<ApiError> {
  const error: unknown = await promise.then(
    () => null,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(ApiError);
  return error as ApiError;
}

it('changes carry the header that forms cannot send, the lease, and the draft version', async () => {
  const { api, calls } = answering(json(200, { version: 4 }));
  const draft = { version: 3, objects: [], deleted: [], exhaustive: false, current: null };
  expect(await api.saveDraft('7', 'L', draft)).toEqual({ version: 4 });
  const [path, init] = calls[0]!;
  expect(path).toBe('/api/tasks/7/draft');
  expect(init).toMatchObject({ method: 'PUT', credentials: 'same-origin' });
  expect(init.headers).toMatchObject({
    ...{ 'X-Maskwheel': '1', 'X-Lease': 'L', 'If-Match': '"3"' },
    'Content-Type': 'application/json',
  });
});

it('reading sends neither', async () => {
  const { api, calls } = answering(json(200, { name: 'ann', role: 'admin' }));
  expect(await api.me()).toEqual({ name: 'ann', role: 'admin' });
  expect(Object.keys(calls[0]![1].headers ?? {})).toEqual(['Accept']);
});

it('names cannot leave their place in the path', async () => {
  const { api, calls } = answering(json(200, {}));
  await api.campaign('../me?x=1');
  expect(calls[0]![0]).toBe('/api/campaigns/..%2Fme%3Fx%3D1');
});

it.each([
  [409, { code: 'lease_lost', message: 'gone' }, { leaseLost: true, temporary: false }],
  [422, { code: 'invalid_mask', message: 'empty' }, { temporary: false }],
  [429, { code: 'too_many_requests', message: 'slow' }, { temporary: true }],
  [503, { code: 'busy', message: 'later' }, { temporary: true }],
])('an error %i is a value with the code of the service', async (status, body, expected) => {
  const { api } = answering(json(status, body, { 'Retry-After': '7' }));
  const error = await errorOf(api.me());
  expect(error).toMatchObject({ status, ...body, retryAfterMs: 7000 });
  expect({ leaseLost: error.leaseLost, temporary: error.temporary }).toMatchObject(expected);
});

it('an error without a body of ours still has words', async () => {
  const { api } = answering(new Response('<html>', { status: 502, statusText: 'Bad Gateway' }));
  expect((await errorOf(api.me())).message).toBe('The service answered 502 Bad Gateway.');
});

it('a dead network, a page in place of JSON, and silence are told apart', async () => {
  const { api } = answering(new TypeError('Failed to fetch'), new Response('<html>'));
  expect(await errorOf(api.me())).toMatchObject({ status: 0, code: 'network', temporary: true });
  expect(await errorOf(api.me())).toMatchObject({ code: 'not_json' });
  const silent = new Api({
    fetch: (_input, init) =>
      new Promise((_resolve, reject) => {
        init?.signal?.addEventListener('abort', () => reject(new DOMException('x', 'AbortError')));
      }),
  });
  const error = await errorOf(silent.json('/api/me', { timeoutMs: 5 }));
  expect(error).toMatchObject({ code: 'timeout', temporary: true });
});

it('whoever aborts gets the abort, not an error of the service', async () => {
  const abort = new AbortController();
  abort.abort();
  const { api } = answering(new DOMException('stopped', 'AbortError') as unknown as Error);
  await expect(api.json('/api/me', { signal: abort.signal })).rejects.toThrow('stopped');
});

it('an ended session is told in one place, a wrong token is not', async () => {
  const signedOut = json(401, { code: 'no_session', message: 'sign in' });
  const { api, onsignedout } = answering(signedOut, json(401, { code: 'bad_token', message: '' }));
  await errorOf(api.me());
  expect(onsignedout).toHaveBeenCalledTimes(1);
  await errorOf(api.join('nonsense'));
  expect(onsignedout).toHaveBeenCalledTimes(1);
});

it('an embedding that is still being made is waited for', async () => {
  vi.useFakeTimers();
  try {
    const notReady = () => json(503, { code: 'embedding_not_ready' }, { 'Retry-After': '2' });
    const { api, calls } = answering(notReady(), notReady(), new Response('abc'));
    const bytes = api.bytes('/e', { patienceMs: 60_000 });
    await vi.advanceTimersByTimeAsync(4_000);
    expect((await bytes).byteLength).toBe(3);
    expect(calls).toHaveLength(3);
  } finally {
    vi.useRealTimers();
  }
});

it('patience ends', async () => {
  vi.useFakeTimers();
  try {
    const notReady = () => json(503, { code: 'embedding_not_ready' }, { 'Retry-After': '2' });
    const { api } = answering(notReady(), notReady(), notReady());
    const error = errorOf(api.bytes('/e', { patienceMs: 3_000 }));
    await vi.advanceTimersByTimeAsync(10_000);
    expect(await error).toMatchObject({ code: 'embedding_not_ready' });
  } finally {
    vi.useRealTimers();
  }
});
