// The keyboard's pointer: moves over the canvas in screen pixels, finer with Shift, faster while a key
// repeats; the image follows when it reaches the margin.

import type { At } from './pointer';
import { revealing, toImage, toScreen, type Extent, type Viewport } from './viewport';

const STEP_PX = 10;
const FAST_PX = 32;
const FAST_AFTER = 6;
const MARGIN_PX = 48;

export type Direction = 'left' | 'right' | 'up' | 'down';

const WAY: Record<Direction, At> = { left: [-1, 0], right: [1, 0], up: [0, -1], down: [0, 1] };

export interface Moved {
  readonly at: At;
  readonly view: Viewport;
}

/** Where the crosshair and the view are after one press; `repeats` counts since the key went down. */
export function moveCrosshair(
  at: At,
  direction: Direction,
  fine: boolean,
  repeats: number,
  view: Viewport,
  image: Extent,
  canvas: Extent,
): Moved {
  const [wayX, wayY] = WAY[direction];
  // Fine steps are one image pixel where pixels are large, else one screen pixel.
  const step = fine ? Math.max(1, view.scale) : repeats > FAST_AFTER ? FAST_PX : STEP_PX;
  const moved = onImage([at[0] + wayX * step, at[1] + wayY * step], view, image);
  const shown = revealing(view, moved[0], moved[1], canvas, MARGIN_PX);
  if (shown.dx === 0 && shown.dy === 0) return { at: moved, view };
  return { at: [moved[0] + shown.dx, moved[1] + shown.dy], view: shown.view };
}

/** The nearest place that lies on the image. */
export function onImage(at: At, view: Viewport, image: Extent): At {
  const [x, y] = toImage(view, at[0], at[1]);
  const inside = (value: number, length: number): number =>
    Math.min(Math.max(value, 0.5), length - 0.5);
  return toScreen(view, inside(x, image.width), inside(y, image.height));
}
