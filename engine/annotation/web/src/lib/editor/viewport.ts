// Where the image lies on the canvas: pure arithmetic between image pixels and CSS pixels.
//
//   const view = zoomAt(fitted(image, canvas), 1.2, pointer.x, pointer.y, image, canvas);
//   const [x, y] = toImage(view, pointer.x, pointer.y);

export interface Viewport {
  /** CSS pixels per image pixel. */
  readonly scale: number;
  /** Where the image's top left corner lies, in CSS pixels of the canvas. */
  readonly x: number;
  readonly y: number;
}

export interface Extent {
  readonly width: number;
  readonly height: number;
}

export interface Rect {
  readonly x0: number;
  readonly y0: number;
  readonly x1: number;
  readonly y1: number;
}

export const MAX_SCALE = 40;
const MARGIN_PX = 24;
/** The image may be shrunk to this share of its fitted size. */
const MIN_OF_FIT = 0.5;
/** So much of the image (or of the canvas) always stays in view. */
const KEPT_PX = 64;

export function toImage(view: Viewport, x: number, y: number): [number, number] {
  return [(x - view.x) / view.scale, (y - view.y) / view.scale];
}

export function toScreen(view: Viewport, x: number, y: number): [number, number] {
  return [x * view.scale + view.x, y * view.scale + view.y];
}

/** The whole image, centred, with a margin; small images grow to at most four times their size. */
export function fitted(image: Extent, canvas: Extent): Viewport {
  const scale = fitScale(image, canvas);
  return {
    scale,
    x: (canvas.width - image.width * scale) / 2,
    y: (canvas.height - image.height * scale) / 2,
  };
}

/** A rectangle of the image, centred, filling about `share` of the canvas. */
export function fittedTo(rect: Rect, image: Extent, canvas: Extent, share = 0.6): Viewport {
  const width = Math.max(8, rect.x1 - rect.x0);
  const height = Math.max(8, rect.y1 - rect.y0);
  const wanted = share * Math.min(canvas.width / width, canvas.height / height);
  const scale = clampScale(Math.min(wanted, 8), image, canvas);
  const view = {
    scale,
    x: canvas.width / 2 - ((rect.x0 + rect.x1) / 2) * scale,
    y: canvas.height / 2 - ((rect.y0 + rect.y1) / 2) * scale,
  };
  return kept(view, image, canvas);
}

/** Grow by `factor`; what lies under (x, y) stays there. */
export function zoomAt(
  view: Viewport,
  factor: number,
  x: number,
  y: number,
  image: Extent,
  canvas: Extent,
): Viewport {
  const scale = clampScale(view.scale * factor, image, canvas);
  const ratio = scale / view.scale;
  return kept({ scale, x: x - (x - view.x) * ratio, y: y - (y - view.y) * ratio }, image, canvas);
}

export function panBy(
  view: Viewport,
  dx: number,
  dy: number,
  image: Extent,
  canvas: Extent,
): Viewport {
  return kept({ scale: view.scale, x: view.x + dx, y: view.y + dy }, image, canvas);
}

/** After the canvas changed its size: what was in its middle stays there. */
export function resized(view: Viewport, before: Extent, after: Extent, image: Extent): Viewport {
  const moved = {
    scale: clampScale(view.scale, image, after),
    x: view.x + (after.width - before.width) / 2,
    y: view.y + (after.height - before.height) / 2,
  };
  return kept(moved, image, after);
}

/** Pan just far enough to bring (x, y) at least `margin` inside the canvas. */
export function revealing(view: Viewport, x: number, y: number, canvas: Extent, margin: number) {
  const into = (at: number, length: number): number =>
    Math.min(Math.max(at, margin), Math.max(margin, length - margin)) - at;
  const [dx, dy] = [into(x, canvas.width), into(y, canvas.height)];
  return { view: { scale: view.scale, x: view.x + dx, y: view.y + dy }, dx, dy };
}

/** The part of the image that the canvas shows, ends rounded outwards; null when none is. */
export function visibleRect(view: Viewport, image: Extent, canvas: Extent): Rect | null {
  const [left, top] = toImage(view, 0, 0);
  const [right, bottom] = toImage(view, canvas.width, canvas.height);
  const rect = {
    x0: Math.max(0, Math.floor(left)),
    y0: Math.max(0, Math.floor(top)),
    x1: Math.min(image.width, Math.ceil(right)),
    y1: Math.min(image.height, Math.ceil(bottom)),
  };
  return rect.x0 < rect.x1 && rect.y0 < rect.y1 ? rect : null;
}

function fitScale(image: Extent, canvas: Extent): number {
  const width = Math.max(1, canvas.width - 2 * MARGIN_PX);
  const height = Math.max(1, canvas.height - 2 * MARGIN_PX);
  return Math.min(width / image.width, height / image.height, 4);
}

function clampScale(scale: number, image: Extent, canvas: Extent): number {
  const least = Math.min(1, fitScale(image, canvas) * MIN_OF_FIT);
  return Math.min(Math.max(scale, least), MAX_SCALE);
}

/** Keep the image from leaving the canvas. */
function kept(view: Viewport, image: Extent, canvas: Extent): Viewport {
  const along = (at: number, length: number, room: number): number => {
    const stays = Math.min(KEPT_PX, length, room);
    return Math.min(Math.max(at, stays - length), room - stays);
  };
  return {
    scale: view.scale,
    x: along(view.x, image.width * view.scale, canvas.width),
    y: along(view.y, image.height * view.scale, canvas.height),
  };
}
