// The browser's decoder with a worker that only pretends: what is asked of it, and when.

import { afterEach, describe, expect, test, vi } from 'vitest';
import {
  BrowserDecoder,
  DecoderError,
  type DecoderPrompts,
  type Source,
} from '../../src/lib/decoder';
import { candidates, DESCRIPTION, FakeWorker, Gate, imageNamed, taskOf } from './fakes';

const SOURCE: Source = {
  model: ({ bytes }) => Promise.resolve(new ArrayBuffer(bytes)),
  embedding: () => Promise.resolve(new ArrayBuffer(7)),
};

function at(x: number): DecoderPrompts {
  return { points: [{ x, y: 1, label: 1 }], box: null, mask: null };
}

function decoderOf(worker: FakeWorker, source: Source = SOURCE): Promise<BrowserDecoder> {
  return BrowserDecoder.load(DESCRIPTION, source, 2, worker);
}

/** A worker whose decodes wait; everything else is answered at once. */
function gatedWorker(): { worker: FakeWorker; gate: Gate } {
  const gate = new Gate();
  const worker = new FakeWorker((request) =>
    request.kind === 'decode' ? gate.passed.then(() => candidates(request)) : null,
  );
  return { worker, gate };
}

afterEach(() => {
  vi.restoreAllMocks();
});

test('loads the model once, prepares each image once and decodes each click', async () => {
  const worker = new FakeWorker();
  const decoder = await decoderOf(worker);
  const prepared = await decoder.prepare(taskOf('a'));
  await decoder.prepare(taskOf('a'));
  const answer = await decoder.decode(prepared, at(5));
  expect(worker.kinds()).toEqual(['load', 'prepare', 'decode']);
  expect(worker.asked[0]).toMatchObject({ threads: 2, decode: { byteLength: 5 } });
  expect(worker.asked[2]).toMatchObject({ key: 'a', frame: { input: [48, 64] } });
  expect(answer).toMatchObject({ best: 0, candidates: [{ iou: 5 }] });
});

describe('clicks and previews', () => {
  test('of three previews in a row the middle one is not computed; every click is', async () => {
    const { worker, gate } = gatedWorker();
    const decoder = await decoderOf(worker);
    const prepared = await decoder.prepare(taskOf('a'));
    const answers = Promise.all([
      decoder.preview(prepared, at(1)),
      decoder.preview(prepared, at(2)),
      decoder.preview(prepared, at(3)),
      decoder.decode(prepared, at(4)),
      decoder.decode(prepared, at(5)),
    ]);
    gate.open();
    expect((await answers).map((answer) => answer?.candidates[0]?.iou ?? null)).toEqual([
      1,
      null,
      null, // the click came before its turn
      4,
      5,
    ]);
  });

  test('a click where the preview is shown has its answer at once', async () => {
    const worker = new FakeWorker();
    const decoder = await decoderOf(worker);
    const prepared = await decoder.prepare(taskOf('a'));
    const preview = await decoder.preview(prepared, at(3));
    const click = await decoder.decode(prepared, at(3));
    expect(click.candidates).toBe(preview?.candidates);
    expect(worker.kinds().filter((kind) => kind === 'decode').length).toBe(1);
    await decoder.decode(prepared, { ...at(3), mask: new Float32Array(4) }); // another question
    expect(worker.kinds().filter((kind) => kind === 'decode').length).toBe(2);
  });

  test('there are no previews where they would keep clicks waiting', async () => {
    let clock = 0;
    vi.spyOn(performance, 'now').mockImplementation(() => clock);
    const worker = new FakeWorker((request) => {
      clock += 100;
      return candidates(request);
    });
    const decoder = await decoderOf(worker);
    const prepared = await decoder.prepare(taskOf('a'));
    expect(await decoder.preview(prepared, at(1))).not.toBeNull();
    expect(await decoder.preview(prepared, at(2))).toBeNull();
    expect((await decoder.decode(prepared, at(2))).milliseconds).toBe(100);
  });
});

describe('images', () => {
  test('the oldest of four is forgotten, and prepared again when it is clicked', async () => {
    const worker = new FakeWorker();
    const decoder = await decoderOf(worker);
    const prepared = await decoder.prepare(taskOf('a'));
    for (const id of ['b', 'c', 'd']) await decoder.prefetch(imageNamed(id));
    expect(worker.asked.at(-2)).toEqual({ kind: 'forget', key: 'a' });
    await decoder.decode(prepared, at(1));
    expect(worker.kinds().slice(-4)).toEqual(['prepare', 'forget', 'prepare', 'decode']);
  });

  test('an embedding that could not be fetched is asked for again', async () => {
    const embedding = vi.fn<Source['embedding']>(SOURCE.embedding);
    embedding.mockRejectedValueOnce(new Error('offline'));
    const decoder = await decoderOf(new FakeWorker(), { ...SOURCE, embedding });
    await expect(decoder.prepare(taskOf('a'))).rejects.toThrow('offline');
    await expect(decoder.prepare(taskOf('a'))).resolves.toMatchObject({ task: { id: 'task a' } });
  });
});

describe('failure', () => {
  test('of a decode is told, and the next click is answered', async () => {
    let failing = true;
    const worker = new FakeWorker((request) => {
      if (request.kind === 'decode' && failing) throw new Error('out of memory');
      return candidates(request);
    });
    const decoder = await decoderOf(worker);
    const prepared = await decoder.prepare(taskOf('a'));
    await expect(decoder.decode(prepared, at(1))).rejects.toThrow('out of memory');
    failing = false;
    await expect(decoder.decode(prepared, at(1))).resolves.toMatchObject({ best: 0 });
  });

  test('of the start ends the worker', async () => {
    const worker = new FakeWorker(() => Promise.reject(new Error('no wasm here')));
    await expect(decoderOf(worker)).rejects.toThrow('no wasm here');
    expect(worker.terminated).toBe(true);
  });

  test('of the worker itself reaches whoever waits, and who asks later', async () => {
    const { worker } = gatedWorker();
    const decoder = await decoderOf(worker);
    const prepared = await decoder.prepare(taskOf('a'));
    const waiting = decoder.decode(prepared, at(1));
    await vi.waitFor(() => expect(worker.kinds()).toContain('decode'));
    worker.onerror?.({ message: 'crashed' } as ErrorEvent);
    await expect(waiting).rejects.toThrow(DecoderError);
    await expect(decoder.decode(prepared, at(2))).rejects.toThrow('crashed');
  });

  test('closing the decoder ends what waits', async () => {
    const { worker } = gatedWorker();
    const decoder = await decoderOf(worker);
    const waiting = decoder.decode(await decoder.prepare(taskOf('a')), at(1));
    await vi.waitFor(() => expect(worker.kinds()).toContain('decode'));
    decoder.dispose();
    await expect(waiting).rejects.toThrow('closed');
    expect(worker.terminated).toBe(true);
  });
});
