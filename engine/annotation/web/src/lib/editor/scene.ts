// What lies over the committed masks, as one immutable value, and which part of the screen differs
// between two of them: only that is drawn again.

import type { Mask } from '../masks';
import type { Prompt } from '../types';
import type { At } from './pointer';
import { toScreen, type Rect, type Viewport } from './viewport';

export interface Scene {
  readonly view: Viewport;
  /** The mask in progress and what was asked for it. */
  readonly mask: Mask | null;
  readonly prompts: readonly Prompt[];
  /** Whether the mask shown is older than the prompts. */
  readonly waiting: boolean;
  /** The committed mask under the pointer, here or in the list. */
  readonly hovered: {
    readonly mask: Mask;
    readonly rgb: readonly [number, number, number];
    readonly strong: boolean;
  } | null;
  readonly preview: Mask | null;
  /** A stroke being drawn; image coordinates, radius in image pixels. */
  readonly stroke: {
    readonly mode: 'brush' | 'eraser';
    readonly radius: number;
    readonly points: readonly At[];
  } | null;
  /** A box being dragged; image coordinates. */
  readonly box: Rect | null;
  /** The brush under the pointer: CSS pixels. */
  readonly brush: {
    readonly x: number;
    readonly y: number;
    readonly radius: number;
    readonly mode: 'brush' | 'eraser';
  } | null;
  /** The keyboard's crosshair: CSS pixels. */
  readonly crosshair: At | null;
  readonly hidden: boolean;
  readonly outlines: boolean;
  readonly opacity: number;
}

export const EMPTY_SCENE: Scene = {
  view: { scale: 1, x: 0, y: 0 },
  mask: null,
  prompts: [],
  waiting: false,
  hovered: null,
  preview: null,
  stroke: null,
  box: null,
  brush: null,
  crosshair: null,
  hidden: false,
  outlines: false,
  opacity: 0.4,
};

/** Radius of a point's mark, with its ring. */
export const MARK_PX = 9;
export const CROSSHAIR_PX = 22;
const LINE_PX = 4;

/** What to draw again, in CSS pixels: a rectangle, everything, or null for nothing. */
export function dirtyOf(before: Scene, after: Scene): Rect | 'all' | null {
  if (before === after) return null;
  if (
    before.view !== after.view ||
    before.hidden !== after.hidden ||
    before.outlines !== after.outlines ||
    before.opacity !== after.opacity
  )
    return 'all';
  let dirty: Rect | null = null;
  const add = (rect: Rect | null): void => {
    dirty = rect && dirty ? hull(rect, dirty) : (rect ?? dirty);
  };
  const { view } = after;
  const changed = <T>(a: T, b: T, bounds: (value: T) => Rect | null): void => {
    if (a === b || sameFields(a, b)) return;
    add(bounds(a));
    add(bounds(b));
  };
  changed(before.mask, after.mask, (mask) => maskBounds(mask, view));
  if (before.waiting !== after.waiting) add(maskBounds(after.mask, view));
  changed(before.preview, after.preview, (mask) => maskBounds(mask, view));
  changed(before.hovered, after.hovered, (hovered) => maskBounds(hovered?.mask ?? null, view));
  changed(before.prompts, after.prompts, (prompts) => promptBounds(prompts, view));
  if (before.waiting !== after.waiting) add(promptBounds(after.prompts, view));
  changed(before.box, after.box, (box) => screenRect(box, view, LINE_PX));
  changed(before.brush, after.brush, (brush) =>
    brush ? around([[brush.x, brush.y]], brush.radius + LINE_PX) : null,
  );
  changed(before.crosshair, after.crosshair, (at) => (at ? around([at], CROSSHAIR_PX + 2) : null));
  if (before.stroke !== after.stroke) add(strokeBounds(before.stroke, after.stroke, view));
  return dirty;
}

/** Two small values alike in every field. */
function sameFields(a: unknown, b: unknown): boolean {
  if (typeof a !== 'object' || typeof b !== 'object' || !a || !b) return false;
  const [left, right] = [Object.entries(a), new Map(Object.entries(b))];
  return left.length === right.size && left.every(([key, value]) => right.get(key) === value);
}

/** Of a stroke that grew only its new end is dirty. */
function strokeBounds(
  before: Scene['stroke'],
  after: Scene['stroke'],
  view: Viewport,
): Rect | null {
  const bounds = (stroke: Scene['stroke'], from = 0): Rect | null => {
    if (!stroke) return null;
    const points = stroke.points.slice(from).map(([x, y]) => toScreen(view, x, y));
    return around(points, stroke.radius * view.scale + LINE_PX);
  };
  const grew =
    before && after && before.mode === after.mode && before.points[0] === after.points[0];
  if (grew) return bounds(after, Math.max(0, before.points.length - 1));
  const [a, b] = [bounds(before), bounds(after)];
  return a && b ? hull(a, b) : (a ?? b);
}

function promptBounds(prompts: readonly Prompt[], view: Viewport): Rect | null {
  let bounds: Rect | null = null;
  for (const prompt of prompts) {
    const rect =
      prompt.kind === 'point'
        ? around([toScreen(view, prompt.x, prompt.y)], MARK_PX + LINE_PX)
        : prompt.kind === 'box'
          ? screenRect(prompt, view, LINE_PX)
          : null;
    bounds = rect && bounds ? hull(rect, bounds) : (rect ?? bounds);
  }
  return bounds;
}

function maskBounds(mask: Mask | null, view: Viewport): Rect | null {
  if (!mask || mask.area === 0) return null;
  const { x0, y0, w, h } = mask;
  return screenRect({ x0, y0, x1: x0 + w, y1: y0 + h }, view, LINE_PX + view.scale);
}

function screenRect(rect: Rect | null, view: Viewport, margin: number): Rect | null {
  if (!rect) return null;
  const corners = [toScreen(view, rect.x0, rect.y0), toScreen(view, rect.x1, rect.y1)];
  return around(corners, margin);
}

function around(points: readonly At[], margin: number): Rect | null {
  if (points.length === 0) return null;
  let [x0, y0, x1, y1] = [Infinity, Infinity, -Infinity, -Infinity];
  for (const [x, y] of points) {
    x0 = Math.min(x0, x);
    y0 = Math.min(y0, y);
    x1 = Math.max(x1, x);
    y1 = Math.max(y1, y);
  }
  return { x0: x0 - margin, y0: y0 - margin, x1: x1 + margin, y1: y1 + margin };
}

export function hull(a: Rect, b: Rect): Rect {
  return {
    x0: Math.min(a.x0, b.x0),
    y0: Math.min(a.y0, b.y0),
    x1: Math.max(a.x1, b.x1),
    y1: Math.max(a.y1, b.y1),
  };
}
