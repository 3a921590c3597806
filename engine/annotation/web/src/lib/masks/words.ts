// Loops over bits four at a time: most neighbours are alike, and large masks have millions of them.

const STEP = 4;

/** Visit each i from w on where bits[i] and bits[i - w], the pixel above it, differ. */
export function forDifferences(bits: Uint8Array, w: number, visit: (i: number) => void): void {
  const words = new DataView(bits.buffer, bits.byteOffset, bits.byteLength);
  const whole = bits.length - STEP;
  let i = w;
  for (; i <= whole; i += STEP) {
    if (words.getUint32(i, true) === words.getUint32(i - w, true)) continue;
    for (let k = i; k < i + STEP; k++) if (bits[k] !== bits[k - w]) visit(k);
  }
  for (; i < bits.length; i++) if (bits[i] !== bits[i - w]) visit(i);
}

/** Turn marks where a column changes into bits: each pixel changes with the one above it. */
export function toggleDown(bits: Uint8Array, w: number): void {
  const words = new DataView(bits.buffer, bits.byteOffset, bits.byteLength);
  const whole = bits.length - STEP;
  let i = w;
  if (w >= STEP)
    for (; i <= whole; i += STEP)
      words.setUint32(i, words.getUint32(i, true) ^ words.getUint32(i - w, true), true);
  for (; i < bits.length; i++) bits[i]! ^= bits[i - w]!;
}
