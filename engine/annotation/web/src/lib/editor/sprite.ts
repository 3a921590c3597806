// One mask as a bitmap of the part in view: the mask in progress, the one under the pointer, the preview.
// Built once per mask and zoom level, then only copied.

import type { Mask } from '../masks';
import { levelFor, rasterise, type Style } from './raster';
import { toScreen, visibleRect, type Extent, type Rect, type Viewport } from './viewport';

/** How far beyond the view a sprite reaches, as a share of it: panning a little builds nothing. */
const BEYOND = 0.3;

interface Built {
  readonly mask: Mask;
  readonly style: Style;
  readonly level: number;
  readonly rect: Rect;
}

export class MaskSprite {
  private readonly canvas = document.createElement('canvas');
  private built: Built | null = null;

  /** Draw the mask in device pixels. */
  draw(
    context: CanvasRenderingContext2D,
    mask: Mask,
    style: Style,
    view: Viewport,
    image: Extent,
    canvas: Extent,
    ratio: number,
  ): void {
    const level = levelFor(view.scale * ratio);
    const around = style.reach * 2 ** level;
    const seen = clipped(windowOf(mask, around), visibleRect(view, image, canvas));
    if (mask.area === 0 || !seen) return;
    if (!this.holds(mask, style, level, seen)) this.build(mask, style, level, view, image, canvas);
    const { rect } = this.built!;
    const [left, top] = toScreen(view, rect.x0, rect.y0);
    const [right, bottom] = toScreen(view, rect.x1, rect.y1);
    context.imageSmoothingEnabled = view.scale * ratio * 2 ** level < 1;
    context.drawImage(
      this.canvas,
      left * ratio,
      top * ratio,
      (right - left) * ratio,
      (bottom - top) * ratio,
    );
  }

  private holds(mask: Mask, style: Style, level: number, seen: Rect): boolean {
    const { built } = this;
    return (
      built !== null &&
      built.mask === mask &&
      built.level === level &&
      sameStyle(built.style, style) &&
      built.rect.x0 <= seen.x0 &&
      built.rect.y0 <= seen.y0 &&
      built.rect.x1 >= seen.x1 &&
      built.rect.y1 >= seen.y1
    );
  }

  private build(
    mask: Mask,
    style: Style,
    level: number,
    view: Viewport,
    image: Extent,
    canvas: Extent,
  ): void {
    const size = 2 ** level;
    const wide = {
      width: canvas.width * (1 + 2 * BEYOND),
      height: canvas.height * (1 + 2 * BEYOND),
    };
    const moved = {
      ...view,
      x: view.x + canvas.width * BEYOND,
      y: view.y + canvas.height * BEYOND,
    };
    const seen = clipped(windowOf(mask, style.reach * size), visibleRect(moved, image, wide));
    const area = seen ?? { x0: mask.x0, y0: mask.y0, x1: mask.x0 + 1, y1: mask.y0 + 1 };
    const x0 = Math.floor(area.x0 / size) * size;
    const y0 = Math.floor(area.y0 / size) * size;
    const width = Math.ceil((area.x1 - x0) / size);
    const height = Math.ceil((area.y1 - y0) / size);
    const data = new ImageData(width, height);
    rasterise(new Uint32Array(data.data.buffer), { x0, y0, width, height, size }, [
      { mask, style },
    ]);
    this.canvas.width = width;
    this.canvas.height = height;
    this.canvas.getContext('2d')!.putImageData(data, 0, 0);
    const rect = { x0, y0, x1: x0 + width * size, y1: y0 + height * size };
    this.built = { mask, style, level, rect };
  }
}

/** The mask's window and a little around it. */
export function windowOf(mask: Mask, around: number): Rect {
  return {
    x0: mask.x0 - around,
    y0: mask.y0 - around,
    x1: mask.x0 + mask.w + around,
    y1: mask.y0 + mask.h + around,
  };
}

function clipped(a: Rect, b: Rect | null): Rect | null {
  if (!b) return null;
  const rect = {
    x0: Math.max(a.x0, b.x0),
    y0: Math.max(a.y0, b.y0),
    x1: Math.min(a.x1, b.x1),
    y1: Math.min(a.y1, b.y1),
  };
  return rect.x0 < rect.x1 && rect.y0 < rect.y1 ? rect : null;
}

function sameStyle(a: Style, b: Style): boolean {
  return a.fill === b.fill && a.edge === b.edge && a.halo === b.halo && a.reach === b.reach;
}
