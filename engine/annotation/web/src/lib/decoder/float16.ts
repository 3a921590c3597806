// Half floats: the service sends embeddings and logits in 16 bits. Browsers that know Float16Array
// convert by it, the others by tables.

interface Float16ArrayConstructor {
  new (buffer: ArrayBufferLike, byteOffset?: number, length?: number): ArrayLike<number>;
  from(values: ArrayLike<number>): { readonly buffer: ArrayBuffer };
}

function builtIn(): Float16ArrayConstructor | null {
  return (globalThis as { Float16Array?: Float16ArrayConstructor }).Float16Array ?? null;
}

/** The values of half floats given as their 16 bits. */
export function halvesToFloats(halves: Uint16Array, Native = builtIn()): Float32Array<ArrayBuffer> {
  if (Native) return new Float32Array(new Native(halves.buffer, halves.byteOffset, halves.length));
  const floats = new Float32Array(halves.length);
  const bits = new Uint32Array(floats.buffer);
  table ??= allHalves();
  for (let i = 0; i < halves.length; i++) bits[i] = table[halves[i]!]!;
  return floats;
}

/** The 16 bits of the nearest half floats, ties to even; too large ones become infinite. */
export function floatsToHalves(floats: Float32Array, Native = builtIn()): Uint16Array<ArrayBuffer> {
  if (Native) return new Uint16Array(Native.from(floats).buffer);
  const bits = new Uint32Array(floats.buffer, floats.byteOffset, floats.length);
  return Uint16Array.from(bits, halfOf);
}

let table: Uint32Array | undefined;

/** The float32 bits of all 65,536 half floats. */
function allHalves(): Uint32Array {
  const values = new Float32Array(65536);
  for (let half = 0; half < values.length; half++) {
    const exponent = (half >> 10) & 0x1f;
    const fraction = half & 0x3ff;
    const size =
      exponent === 0
        ? fraction * 2 ** -24
        : exponent === 31
          ? fraction
            ? NaN
            : Infinity
          : (1 + fraction / 1024) * 2 ** (exponent - 15);
    values[half] = half & 0x8000 ? -size : size;
  }
  return new Uint32Array(values.buffer);
}

function halfOf(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const size = bits & 0x7fffffff;
  if (size > 0x7f800000) return sign | 0x7e00; // not a number
  if (size >= 0x477ff000) return sign | 0x7c00; // rounds to more than the largest
  if (size < 0x33000001) return sign; // rounds to nothing
  const exponent = size >>> 23;
  // Below 2^-14 the value is a whole number of steps of 2^-24: the leading 1 becomes explicit.
  const shift = exponent < 113 ? 126 - exponent : 13;
  const value = exponent < 113 ? (size & 0x7fffff) | 0x800000 : size - (112 << 23);
  const half = value >>> shift;
  const rest = value & ((1 << shift) - 1);
  const middle = 1 << (shift - 1);
  return sign | (half + (rest > middle || (rest === middle && half & 1) ? 1 : 0));
}
