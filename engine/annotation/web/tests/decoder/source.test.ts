// Files from the service: checked, and waited for.

import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { serviceSource } from '../../src/lib/decoder';
import { apiOf, imageNamed } from './fakes';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

test('an embedding that is being made is waited for as long as the service says', async () => {
  let asked = 0;
  const busy = { status: 503, headers: { 'Retry-After': '2' } };
  const api = apiOf(() => (++asked < 3 ? new Response('{}', busy) : new ArrayBuffer(9)));
  const found = serviceSource(api, '/m/').embedding(imageNamed('a'));
  await vi.advanceTimersByTimeAsync(3900);
  expect(asked).toBe(2);
  await vi.advanceTimersByTimeAsync(200);
  expect((await found).byteLength).toBe(9);
});

test('an embedding that is refused is not asked for again', async () => {
  const api = apiOf(() => new Response('{"message": "gone"}', { status: 404 }));
  await expect(serviceSource(api, '/m/').embedding(imageNamed('a'))).rejects.toThrow('gone');
});

test('a model file that is cut short is refused', async () => {
  const source = serviceSource(
    apiOf(() => new ArrayBuffer(4)),
    '/m/',
  );
  const file = { name: 'decode.onnx', sha256: '', bytes: 5 };
  await expect(source.model(file)).rejects.toThrow('decode.onnx should have 5 bytes; got 4');
});
