// The browser or the server: by measured time, and by what works at all.

import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { chooseDecoder, describeMeasured, type ChooseOptions } from '../../src/lib/decoder';
import { apiOf, candidates, DESCRIPTION, FakeWorker, safetensors, taskOf } from './fakes';

let clock = 0;
let browserTakes = 0;
let serverTakes = 0;
let browserWorks = true;
let serverWorks = true;
let workers: FakeWorker[] = [];

const FILE = safetensors({
  iou: { shape: [4], halves: [0, 0, 0, 0] },
  logits: { shape: [4, 16, 16], halves: Array.from({ length: 1024 }, () => 0) },
});

function options(only?: ChooseOptions['only']): ChooseOptions {
  const api = apiOf((path) => {
    if (path.endsWith('decode')) {
      if (!serverWorks) return new Response('{"message": "no decoder"}', { status: 404 });
      clock += serverTakes;
      return FILE;
    }
    return new ArrayBuffer(path.endsWith('prepare_1.onnx') ? 3 : 5);
  });
  return { task: taskOf('a'), lease: () => 'lease', api, base: '/api/models/m/', only };
}

beforeEach(() => {
  [clock, workers, browserWorks, serverWorks] = [0, [], true, true];
  vi.spyOn(performance, 'now').mockImplementation(() => clock);
  vi.stubGlobal('Worker', function () {
    const worker = new FakeWorker((request) => {
      if (request.kind === 'load' && !browserWorks) throw new Error('no wasm');
      if (request.kind === 'decode') clock += browserTakes;
      return candidates(request);
    });
    workers.push(worker);
    return worker;
  });
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
});

test('a fast browser is taken without asking the server', async () => {
  [browserTakes, serverTakes] = [12, 1];
  const { decoder, measured } = await chooseDecoder(DESCRIPTION, options());
  expect(decoder.kind).toBe('browser');
  expect(measured).toMatchObject({ browserMs: 12, serverMs: null, threads: 1 });
  expect(describeMeasured(measured)).toBe('12 ms in the browser');
});

test('a slow browser gives way to a server that is clearly faster', async () => {
  [browserTakes, serverTakes] = [300, 40];
  const { decoder, measured } = await chooseDecoder(DESCRIPTION, options());
  expect(decoder.kind).toBe('server');
  expect(describeMeasured(measured)).toBe('40 ms on the server');
  expect(workers.map((worker) => worker.terminated)).toEqual([true, false]);
});

test('a slow browser stays where the server is not clearly faster', async () => {
  [browserTakes, serverTakes] = [300, 200];
  const { decoder, measured } = await chooseDecoder(DESCRIPTION, options());
  expect(decoder.kind).toBe('browser');
  expect(measured).toMatchObject({ browserMs: 300, serverMs: 200 });
  expect(workers.map((worker) => worker.terminated)).toEqual([false, true]);
});

test('a slow browser stays where the server does not decode', async () => {
  [browserTakes, serverWorks] = [300, false];
  const { decoder, measured } = await chooseDecoder(DESCRIPTION, options());
  expect(decoder.kind).toBe('browser');
  expect(measured.reason).toContain('no decoder');
});

test('a browser that cannot run the model leaves it to the server, and says why', async () => {
  browserWorks = false;
  const { decoder, measured } = await chooseDecoder(DESCRIPTION, options());
  expect(decoder.kind).toBe('server');
  expect(measured.reason).toContain('no wasm');
  expect(describeMeasured(measured)).toBe('on the server');
});

test('what is asked for is taken, whatever is faster', async () => {
  [browserTakes, serverTakes] = [300, 1];
  expect((await chooseDecoder(DESCRIPTION, options('browser'))).decoder.kind).toBe('browser');
  expect((await chooseDecoder(DESCRIPTION, options('server'))).decoder.kind).toBe('server');
  browserWorks = false;
  await expect(chooseDecoder(DESCRIPTION, options('browser'))).rejects.toThrow('no wasm');
});
