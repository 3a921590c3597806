// Colours of masks: few, far apart, and never the same for two masks side by side. An object keeps
// the colour that it was given.

import type { Mask } from '../masks';
import type { Tint } from '../types';

/**
 * Bright and well apart, also for most colour-blind people (hue and lightness both change). Blue is not
 * among them: it belongs to the mask in progress.
 */
export const PALETTE: readonly (readonly [red: number, green: number, blue: number])[] = [
  [255, 176, 0], // amber
  [0, 214, 178], // teal
  [255, 92, 138], // rose
  [124, 226, 92], // green
  [176, 124, 255], // violet
  [255, 122, 48], // orange
  [146, 240, 255], // ice
  [255, 232, 92], // yellow
  [255, 148, 236], // pink
  [186, 214, 60], // lime
  [230, 70, 60], // red
  [208, 168, 120], // sand
];

/** How far around a mask its neighbours are looked for, as a share of its size. */
const REACH = 0.25;

/** The colour (index) least used around `mask`, then least used at all. */
export function colourFor(
  mask: Mask,
  others: readonly { readonly mask: Mask; readonly colour: number }[],
): number {
  const near = new Array<number>(PALETTE.length).fill(0);
  const all = new Array<number>(PALETTE.length).fill(0);
  const reach = 8 + REACH * Math.max(mask.w, mask.h);
  for (const other of others) {
    all[other.colour]! += 1;
    if (closeTo(mask, other.mask, reach)) near[other.colour]! += 1;
  }
  let best = 0;
  for (let i = 1; i < PALETTE.length; i++)
    if (near[i]! < near[best]! || (near[i] === near[best] && all[i]! < all[best]!)) best = i;
  return best;
}

const VERDICTS = {
  accept: [64, 200, 110],
  fix: [255, 176, 0],
  reject: [240, 70, 70],
} as const satisfies Partial<Record<Tint, readonly [number, number, number]>>;

/** An object's colour on the canvas: a verdict's where there is one, else its own. */
export function rgbOf(colour: number, tint: Tint | undefined): readonly [number, number, number] {
  if (tint === 'accept' || tint === 'fix' || tint === 'reject') return VERDICTS[tint];
  return PALETTE[colour % PALETTE.length]!;
}

export function cssColour(index: number, alpha = 1): string {
  const [red, green, blue] = PALETTE[index % PALETTE.length]!;
  return alpha === 1 ? `rgb(${red} ${green} ${blue})` : `rgb(${red} ${green} ${blue} / ${alpha})`;
}

function closeTo(a: Mask, b: Mask, reach: number): boolean {
  return (
    a.x0 - reach < b.x0 + b.w &&
    b.x0 - reach < a.x0 + a.w &&
    a.y0 - reach < b.y0 + b.h &&
    b.y0 - reach < a.y0 + a.h
  );
}
