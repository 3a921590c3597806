// The image in halves, quarters and eighths, so that a picture of 24 megapixels is drawn from about as
// many pixels as the screen has.

import type { TaskImage } from '../types';
import { toScreen, visibleRect, type Extent, type Viewport } from './viewport';

const SMALLEST_SIDE = 900;

export class ImagePyramid {
  /** Largest first. */
  private levels: ImageBitmap[] = [];
  private closed = false;

  constructor(
    private readonly image: TaskImage,
    private readonly changed: () => void,
  ) {}

  /** Load the preview, then every pixel; each is shown when it comes. */
  async load(signal: AbortSignal): Promise<void> {
    const preview = this.image.preview === this.image.pixels ? null : this.image.preview;
    if (preview) {
      // Only the first impression: without it the image comes a little later.
      const small = await fetched(preview, signal).catch(() => null);
      if (small && !this.take([small])) return;
    }
    const full = await fetched(this.image.pixels, signal);
    const { width, height } = this.image;
    if (full.width !== width || full.height !== height) {
      const got = `${full.width}x${full.height}`;
      full.close();
      throw new Error(`the image measures ${got}, the task says ${width}x${height}`);
    }
    const old = this.levels;
    if (!this.take([full])) return;
    for (const bitmap of old) bitmap.close();
    let last = full;
    while (Math.max(last.width, last.height) > 2 * SMALLEST_SIDE) {
      const half = await createImageBitmap(last, {
        resizeWidth: Math.ceil(last.width / 2),
        resizeHeight: Math.ceil(last.height / 2),
        resizeQuality: 'medium',
      });
      if (!this.take([...this.levels, half])) return;
      last = half;
    }
  }

  draw(context: CanvasRenderingContext2D, view: Viewport, canvas: Extent, ratio: number): void {
    const seen = visibleRect(view, this.image, canvas);
    const wanted = this.image.width * view.scale * ratio * 0.9;
    const level = this.levels.findLast(({ width }) => width >= wanted) ?? this.levels[0];
    if (!seen || !level) return;
    const [sx, sy] = [level.width / this.image.width, level.height / this.image.height];
    const [left, top] = toScreen(view, seen.x0, seen.y0);
    const [right, bottom] = toScreen(view, seen.x1, seen.y1);
    // From two screen pixels per image pixel on people want to see the pixels.
    context.imageSmoothingEnabled = view.scale * ratio < 2 * sx;
    context.drawImage(
      level,
      seen.x0 * sx,
      seen.y0 * sy,
      (seen.x1 - seen.x0) * sx,
      (seen.y1 - seen.y0) * sy,
      left * ratio,
      top * ratio,
      (right - left) * ratio,
      (bottom - top) * ratio,
    );
  }

  close(): void {
    this.closed = true;
    for (const bitmap of this.levels) bitmap.close();
    this.levels = [];
  }

  private take(levels: ImageBitmap[]): boolean {
    if (this.closed) {
      for (const bitmap of levels) bitmap.close();
      return false;
    }
    this.levels = levels;
    this.changed();
    return true;
  }
}

async function fetched(url: string, signal: AbortSignal): Promise<ImageBitmap> {
  const response = await fetch(url, { signal });
  if (!response.ok) throw new Error(`the service answered ${response.status} for the image`);
  return createImageBitmap(await response.blob());
}
