// Reader of safetensors: the body of embeddings and of the server's answers.
//   const { tensors, metadata } = readSafetensors(await api.bytes(url));

import { halvesToFloats } from './float16';
import { DecoderError } from './types';

const LARGEST_HEADER = 100_000_000; // the format's own limit
const BYTES = { F16: 2, F32: 4 } as const;

export interface StoredTensor {
  readonly dtype: keyof typeof BYTES;
  readonly shape: readonly number[];
  /** The bits of half floats, or floats; a view of the file where it is aligned. */
  readonly data: Uint16Array<ArrayBuffer> | Float32Array<ArrayBuffer>;
}

export interface Safetensors {
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  readonly metadata: Readonly<Record<string, string>>;
}

/** Read a whole file; only floats of 16 and 32 bits. Throws DecoderError on anything malformed. */
export function readSafetensors(file: ArrayBuffer): Safetensors {
  const length = file.byteLength >= 8 ? Number(new DataView(file).getBigUint64(0, true)) : NaN;
  if (!(length <= LARGEST_HEADER && 8 + length <= file.byteLength))
    throw new DecoderError(`not a safetensors file: ${file.byteLength} bytes without a header`);
  const header = parseHeader(new Uint8Array(file, 8, length));
  const tensors = new Map<string, StoredTensor>();
  let metadata: Record<string, string> = {};
  for (const [name, entry] of Object.entries(header)) {
    if (name === '__metadata__') metadata = entry as Record<string, string>;
    else tensors.set(name, readTensor(file, 8 + length, name, entry));
  }
  return { tensors, metadata };
}

/** A tensor's values as floats. */
export function floatsOf(tensor: StoredTensor): Float32Array<ArrayBuffer> {
  return tensor.data instanceof Float32Array ? tensor.data : halvesToFloats(tensor.data);
}

function parseHeader(bytes: Uint8Array): Record<string, unknown> {
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder().decode(bytes));
  } catch (error) {
    throw new DecoderError(`the safetensors header is not JSON: ${String(error)}`);
  }
  if (typeof header !== 'object' || header === null)
    throw new DecoderError('the safetensors header is not an object');
  return header as Record<string, unknown>;
}

function readTensor(file: ArrayBuffer, start: number, name: string, entry: unknown): StoredTensor {
  const { dtype, shape, data_offsets } = (entry ?? {}) as Record<string, unknown>;
  if (!isDtype(dtype) || !isCounts(shape) || !isCounts(data_offsets))
    throw new DecoderError(`tensor ${name} is not of float16 or float32: ${JSON.stringify(entry)}`);
  const [from, to] = data_offsets;
  const size = shape.reduce((product, side) => product * side, 1);
  if (from === undefined || to !== from + size * BYTES[dtype] || start + to > file.byteLength)
    throw new DecoderError(`tensor ${name} does not lie in the file: ${JSON.stringify(entry)}`);
  const aligned = (start + from) % BYTES[dtype] === 0;
  const buffer = aligned ? file : file.slice(start + from, start + to);
  const offset = aligned ? start + from : 0;
  const data =
    dtype === 'F16'
      ? new Uint16Array(buffer, offset, size)
      : new Float32Array(buffer, offset, size);
  return { dtype, shape, data };
}

function isDtype(value: unknown): value is keyof typeof BYTES {
  return value === 'F16' || value === 'F32';
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);
}
