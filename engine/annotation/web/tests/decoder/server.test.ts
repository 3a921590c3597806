// The server's decoder: what is sent for a click and what is made of the answer.

import { expect, test } from 'vitest';
import { ServerDecoder } from '../../src/lib/decoder';
import { candidatesOf } from '../../src/lib/decoder/candidates';
import { apiOf, DESCRIPTION, FakeWorker, safetensors, taskOf } from './fakes';

const ONE = 0x3c00; // half float 1
const MINUS_ONE = 0xbc00;

/** Of a 64 x 48 image in an input of 64 x 64: logits 16 x 16, of each mask the left half inside. */
function answerFile(): ArrayBuffer {
  const halves = Array.from({ length: 4 * 256 }, (_, i) => (i % 16 < 8 ? ONE : MINUS_ONE));
  const iou = { shape: [4], halves: [ONE, 0x3800, 0x3400, 0x3900] };
  return safetensors({ iou, logits: { shape: [4, 16, 16], halves } });
}

function masksInPlace(): FakeWorker {
  return new FakeWorker((request) =>
    request.kind === 'masks' ? candidatesOf(request.raw, request.prompts, request.frame) : null,
  );
}

test('a click is sent with its lease and earlier logits, and comes back as masks', async () => {
  const sent: { path: string; init: RequestInit }[] = [];
  const api = apiOf((path, init) => {
    sent.push({ path, init });
    return answerFile();
  });
  const decoder = new ServerDecoder(DESCRIPTION, api, () => 'my lease', masksInPlace());
  const prepared = await decoder.prepare(taskOf('a'));
  const answer = await decoder.decode(prepared, {
    points: [{ x: 3, y: 4, label: 0 }],
    box: [1, 2, 30, 40],
    mask: Float32Array.of(1, -1, 0.5),
  });
  expect(sent[0]?.path).toBe('/api/tasks/task%20a/decode');
  expect(new Headers(sent[0]?.init.headers).get('X-Lease')).toBe('my lease');
  expect(JSON.parse(String(sent[0]?.init.body))).toEqual({
    prompts: [
      { kind: 'point', x: 3, y: 4, label: 0 },
      { kind: 'box', x0: 1, y0: 2, x1: 30, y1: 40 },
    ],
    mask_logits: btoa(String.fromCharCode(0x00, 0x3c, 0x00, 0xbc, 0x00, 0x38)),
  });
  expect(answer.candidates.map(({ iou }) => iou)).toEqual([1, 0.625, 0.5, 0.25]);
  const { mask } = answer.candidates[0]!;
  expect([mask.x0, mask.y0, mask.w, mask.h, mask.area]).toEqual([0, 0, 32, 48, 32 * 48]);
});

test('an answer without logits is refused with a reason', async () => {
  const api = apiOf(() => safetensors({ iou: { shape: [4], halves: [0, 0, 0, 0] } }));
  const decoder = new ServerDecoder(DESCRIPTION, api, () => 'lease', masksInPlace());
  const prepared = await decoder.prepare(taskOf('a'));
  const prompts = { points: [{ x: 3, y: 4, label: 1 }], box: null, mask: null } as const;
  await expect(decoder.decode(prepared, prompts)).rejects.toThrow('no tensor logits');
});

test('the server is not asked for previews', async () => {
  const api = apiOf(() => {
    throw new Error('asked');
  });
  const decoder = new ServerDecoder(DESCRIPTION, api, () => 'lease', masksInPlace());
  expect(await decoder.preview()).toBeNull();
});
