// The border of a mask as closed lines between pixels, corners only. Filled by the even-odd rule the
// loops give the mask again, sharp at every zoom.

import type { Mask, Outline } from './types';
import { forDifferences } from './words';

// East, south, west, north.
const STEP_X = [1, 0, -1, 0] as const;
const STEP_Y = [0, 1, 0, -1] as const;
// From a corner (x, y), the pixels ahead of each heading: on its right hand and on its left.
const RIGHT_X = [0, -1, -1, 0] as const;
const RIGHT_Y = [0, 0, -1, -1] as const;
const LEFT_X = [0, 0, -1, -1] as const;
const LEFT_Y = [-1, 0, 0, -1] as const;

/** Trace every border of a mask, around it and around its holes; pixels that touch only at a corner part. */
export function outline(mask: Mask): Outline {
  const { w, h, bits } = mask;
  const loops: Int32Array[] = [];
  if (mask.area === 0) return loops;
  const seen = new Uint8Array(w * h); // pixels whose upper border was walked
  const begin = (i: number): void => {
    if (bits[i] && !seen[i]) loops.push(trace(mask, i % w, Math.floor(i / w), seen));
  };
  for (let x = 0; x < w; x++) begin(x);
  forDifferences(bits, w, begin); // an upper border is where a set pixel has none above it
  return loops;
}

/** The lines for drawing: `context.stroke(path)` or `context.fill(path, 'evenodd')`. */
export function outlinePath(loops: Outline): Path2D {
  const path = new Path2D();
  for (const loop of loops) {
    path.moveTo(loop[0]!, loop[1]!);
    for (let i = 2; i < loop.length; i += 2) path.lineTo(loop[i]!, loop[i + 1]!);
    path.closePath();
  }
  return path;
}

/** Walk a border with the mask on the right hand, starting east along the top of pixel (x, y). */
function trace(mask: Mask, startX: number, startY: number, seen: Uint8Array): Int32Array {
  const { w, h, bits } = mask;
  const isSet = (x: number, y: number): boolean =>
    x >= 0 && y >= 0 && x < w && y < h && bits[y * w + x] === 1;
  const corners: number[] = [];
  let [x, y, heading] = [startX, startY, 0];
  do {
    if (heading === 0) seen[y * w + x] = 1;
    x += STEP_X[heading]!;
    y += STEP_Y[heading]!;
    let turned = heading;
    if (!isSet(x + RIGHT_X[heading]!, y + RIGHT_Y[heading]!)) turned = (heading + 1) % 4;
    else if (isSet(x + LEFT_X[heading]!, y + LEFT_Y[heading]!)) turned = (heading + 3) % 4;
    if (turned !== heading) corners.push(mask.x0 + x, mask.y0 + y);
    heading = turned;
  } while (x !== startX || y !== startY || heading !== 0);
  return Int32Array.from(corners);
}
