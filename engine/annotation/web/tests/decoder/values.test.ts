// Prompts, half floats and safetensors; tests/annotation/test_web_parity.py holds the last two
// against numpy and the library.

import { describe, expect, test } from 'vitest';
import { floatsToHalves, halvesToFloats } from '../../src/lib/decoder/float16';
import { encodePrompts, offeredTokens } from '../../src/lib/decoder/prompts';
import { floatsOf, readSafetensors } from '../../src/lib/decoder/safetensors';
import { DecoderError } from '../../src/lib/decoder';
import { frameOf } from '../../src/lib/masks';
import { safetensors } from './fakes';

describe('prompts', () => {
  const frame = frameOf(200, 100, 64, 32); // 64 x 32 in the input: a scale of 0.32
  const point = { x: 100, y: 50, label: 0 } as const;

  test('points come first and end with a padding point', () => {
    const { xy, labels } = encodePrompts({ points: [point], box: null, mask: null }, frame);
    expect([...xy]).toEqual([32, 16, 0, 0]);
    expect([...labels]).toEqual([0, -1]);
  });

  test('a box is two corners and needs no padding', () => {
    const { xy, labels } = encodePrompts(
      { points: [point], box: [0, 0, 200, 100], mask: null },
      frame,
    );
    expect([...xy]).toEqual([32, 16, 0, 0, 64, 32]);
    expect([...labels]).toEqual([0, 2, 3]);
  });

  test('a mask alone has the padding point', () => {
    const { labels } = encodePrompts({ points: [], box: null, mask: new Float32Array(1) }, frame);
    expect([...labels]).toEqual([-1]);
  });

  test.each([
    ['one point', { points: [point], box: null, mask: null }, [3, 1, 2]],
    ['two points', { points: [point, point], box: null, mask: null }, [0, 3, 1, 2]],
    ['a box', { points: [], box: [0, 0, 9, 9] as const, mask: null }, [0, 3, 1, 2]],
    ['a point and a mask', { points: [point], box: null, mask: new Float32Array(1) }, [0, 3, 1, 2]],
  ])('%s is answered by the fitting tokens', (_, prompts, tokens) => {
    expect(offeredTokens([0.1, 0.7, 0.6, 0.9], prompts)).toEqual(tokens);
  });
});

test("half floats are the same by tables and by the browser's own array", () => {
  const halves = Uint16Array.from({ length: 65536 }, (_, i) => i);
  const floats = halvesToFloats(halves, null);
  const native = halvesToFloats(halves);
  expect(native.findIndex((value, i) => !Object.is(value, floats[i]))).toBe(-1);
  expect(
    floatsToHalves(floats, null).filter((half, i) => half !== i && !isNaN(floats[i]!)),
  ).toEqual(new Uint16Array(0));
});

describe('safetensors', () => {
  const file = safetensors({ a: { shape: [2, 1], halves: [0x3c00, 0xc000] } });

  test('gives tensors by name', () => {
    const { tensors } = readSafetensors(file);
    expect(tensors.get('a')?.shape).toEqual([2, 1]);
    expect([...floatsOf(tensors.get('a')!)]).toEqual([1, -2]);
  });

  test('gives tensors that do not lie on even bytes', () => {
    const bytes = new Uint8Array(file);
    const length = Number(new DataView(file).getBigUint64(0, true)) + 1;
    const odd = new Uint8Array(file.byteLength + 1);
    new DataView(odd.buffer).setBigUint64(0, BigInt(length), true);
    odd.set(bytes.subarray(8, 8 + length - 1), 8);
    odd[8 + length - 1] = 0x20; // a space
    odd.set(bytes.subarray(8 + length - 1), 8 + length);
    expect([...floatsOf(readSafetensors(odd.buffer).tensors.get('a')!)]).toEqual([1, -2]);
  });

  function withHeader(text: string, length = text.length): ArrayBuffer {
    const bytes = new Uint8Array(8 + text.length + 4);
    new DataView(bytes.buffer).setBigUint64(0, BigInt(length), true);
    bytes.set(new TextEncoder().encode(text), 8);
    return bytes.buffer;
  }

  test.each([
    ['nothing', new ArrayBuffer(0)],
    ['a header longer than the file', withHeader('{}', 99)],
    ['a header that is not JSON', withHeader('{"a"')],
    ['a header that is not an object', withHeader('17')],
    ['an entry that is not an object', withHeader('{"a": null}')],
    ['integers', withHeader('{"a": {"dtype": "I64", "shape": [0], "data_offsets": [0, 0]}}')],
    ['too few bytes', withHeader('{"a": {"dtype": "F16", "shape": [2], "data_offsets": [0, 2]}}')],
    ['bytes outside', withHeader('{"a": {"dtype": "F16", "shape": [3], "data_offsets": [0, 6]}}')],
  ])('with %s are refused', (_, bytes) => {
    expect(() => readSafetensors(bytes)).toThrow(DecoderError);
  });
});
