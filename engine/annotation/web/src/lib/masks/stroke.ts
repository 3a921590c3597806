// A stroke of a round brush: the pixels whose centre lies within `radius` of the line through its
// points. A single point is a disc.

import { emptyMask, tighten } from './mask';
import { MaskError, type Mask } from './types';

export type StrokePoint = readonly [x: number, y: number];

/** Draw a stroke on an image of width x height; what lies outside is cut off. */
export function strokeMask(
  points: readonly StrokePoint[],
  radius: number,
  width: number,
  height: number,
): Mask {
  if (!(radius > 0 && radius < Infinity) || !points.flat().every(Number.isFinite))
    throw new MaskError(`a stroke needs finite points and a radius above 0; got radius ${radius}`);
  if (points.length === 0) return emptyMask(width, height);
  const x0 = clamp(Math.floor(least(points, 0) - radius), 0, width);
  const y0 = clamp(Math.floor(least(points, 1) - radius), 0, height);
  const w = clamp(Math.ceil(greatest(points, 0) + radius), x0, width) - x0;
  const h = clamp(Math.ceil(greatest(points, 1) + radius), y0, height) - y0;
  const bits = new Uint8Array(w * h);
  for (let i = 0; i < points.length; i++)
    if (i > 0 || points.length === 1)
      drawCapsule(bits, x0, y0, w, h, points[Math.max(0, i - 1)]!, points[i]!, radius);
  let area = 0;
  for (let i = 0; i < bits.length; i++) area += bits[i]!;
  return tighten({ width, height, x0, y0, w, h, bits, area });
}

/** Fill, row by row, the span whose pixel centres lie within the radius of the segment a-b. */
function drawCapsule(
  bits: Uint8Array,
  x0: number,
  y0: number,
  w: number,
  h: number,
  a: StrokePoint,
  b: StrokePoint,
  radius: number,
): void {
  const first = clamp(Math.floor(Math.min(a[1], b[1]) - radius) - y0, 0, h);
  const last = clamp(Math.ceil(Math.max(a[1], b[1]) + radius) - y0, 0, h);
  for (let row = first; row < last; row++) {
    const y = y0 + row + 0.5;
    const reach = rowReach(y, a, b, radius);
    if (!reach) continue;
    // The reach is good to a rounding error; the distance itself decides about the ends.
    let left = clamp(Math.floor(reach[0] - 0.5) - x0, 0, w);
    let right = clamp(Math.ceil(reach[1] + 0.5) - x0, 0, w);
    while (left < right && !within(x0 + left + 0.5, y, a, b, radius)) left++;
    while (right > left && !within(x0 + right - 0.5, y, a, b, radius)) right--;
    bits.fill(1, row * w + left, row * w + right);
  }
}

/** Where the horizontal line at `y` enters and leaves the capsule: it is convex, so one span. */
function rowReach(
  y: number,
  a: StrokePoint,
  b: StrokePoint,
  radius: number,
): [number, number] | null {
  let left = Infinity;
  let right = -Infinity;
  for (const [px, py] of [a, b]) {
    const half = radius * radius - (y - py) * (y - py);
    if (half < 0) continue;
    left = Math.min(left, px - Math.sqrt(half));
    right = Math.max(right, px + Math.sqrt(half));
  }
  const [dx, dy] = [b[0] - a[0], b[1] - a[1]];
  const length = Math.hypot(dx, dy);
  if (length > 0) {
    const [nx, ny] = [(-dy / length) * radius, (dx / length) * radius];
    for (const side of [-1, 1]) {
      const [sx, sy] = [a[0] + side * nx, a[1] + side * ny];
      const t = dy === 0 ? NaN : (y - sy) / dy;
      if (!(t >= 0 && t <= 1)) continue;
      left = Math.min(left, sx + t * dx);
      right = Math.max(right, sx + t * dx);
    }
  }
  return left <= right ? [left, right] : null;
}

function within(x: number, y: number, a: StrokePoint, b: StrokePoint, radius: number): boolean {
  const [dx, dy] = [b[0] - a[0], b[1] - a[1]];
  const squared = dx * dx + dy * dy;
  const t = squared === 0 ? 0 : clamp(((x - a[0]) * dx + (y - a[1]) * dy) / squared, 0, 1);
  const [ex, ey] = [x - a[0] - t * dx, y - a[1] - t * dy];
  return ex * ex + ey * ey <= radius * radius;
}

function clamp(value: number, low: number, high: number): number {
  return Math.min(Math.max(value, low), high);
}

function least(points: readonly StrokePoint[], axis: 0 | 1): number {
  return points.reduce((found, point) => Math.min(found, point[axis]), Infinity);
}

function greatest(points: readonly StrokePoint[], axis: 0 | 1): number {
  return points.reduce((found, point) => Math.max(found, point[axis]), -Infinity);
}
