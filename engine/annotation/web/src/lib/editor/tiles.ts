// The layer of committed masks: tiles of 256 pixels per zoom level, built when they come into view and
// again when a mask in them changes. Panning and zooming copy tiles; they never look at masks.

import { levelFor, packed, rasterise, type Shape, type Style } from './raster';
import { toScreen, visibleRect, type Extent, type Rect, type Viewport } from './viewport';
import type { Mask } from '../masks';

export const TILE_PX = 256;
const MOST_TILES = 320;
/** Time for building tiles within one frame; after an edit more, so that a mask never blinks. */
const BUILD_MS = 7;
const EDIT_BUILD_MS = 30;

/** A committed mask as it is drawn. */
export interface Painted {
  readonly id: string;
  readonly mask: Mask;
  readonly rgb: readonly [number, number, number];
  /** Not looked at yet: its fill is fainter. */
  readonly faint: boolean;
}

export interface Look {
  readonly opacity: number;
  readonly outlines: boolean;
}

interface Tile {
  readonly level: number;
  readonly rect: Rect;
  /** null: nothing in it. */
  canvas: HTMLCanvasElement | null;
  stale: boolean;
  used: number;
}

export class TileLayer {
  private readonly tiles = new Map<string, Tile>();
  private readonly spare: HTMLCanvasElement[] = [];
  private readonly buffer = new ImageData(TILE_PX, TILE_PX);
  private readonly pixels = new Uint32Array(this.buffer.data.buffer);
  private objects: readonly Painted[] = [];
  private byArea: readonly Painted[] = [];
  private look: Look = { opacity: 0.4, outlines: false };
  private reach = 2;
  private shownLevel: number | null = null;
  private clock = 0;
  private edited = false;

  /** Take over the objects; tiles under those that changed are to be built again. */
  setObjects(objects: readonly Painted[]): void {
    if (objects === this.objects) return;
    const before = new Map(this.objects.map((object) => [object.id, object]));
    for (const object of objects) {
      const old = before.get(object.id);
      before.delete(object.id);
      if (old && looksAs(old, object)) continue;
      if (old) this.invalidate(old);
      this.invalidate(object);
    }
    for (const gone of before.values()) this.invalidate(gone);
    this.objects = objects;
    this.byArea = [...objects].sort((a, b) => b.mask.area - a.mask.area);
  }

  setLook(look: Look, reach: number): void {
    if (
      look.opacity === this.look.opacity &&
      look.outlines === this.look.outlines &&
      reach === this.reach
    )
      return;
    this.look = look;
    this.reach = reach;
    this.edited = true;
    for (const tile of this.tiles.values()) tile.stale = true;
  }

  /** Draw what is in view; returns whether tiles are left to build in the next frame. */
  draw(
    context: CanvasRenderingContext2D,
    view: Viewport,
    image: Extent,
    canvas: Extent,
    ratio: number,
  ): boolean {
    const visible = visibleRect(view, image, canvas);
    if (!visible) return false;
    this.clock++;
    const level = levelFor(view.scale * ratio);
    const wanted = tilesOver(visible, level);
    const left = this.buildSome(wanted, level);
    context.imageSmoothingEnabled = view.scale * ratio * 2 ** level < 1;
    // What is not built yet shows through from the level that was on screen before.
    if (left && this.shownLevel !== null && this.shownLevel !== level)
      this.copy(context, view, ratio, tilesOver(visible, this.shownLevel), this.shownLevel, false);
    this.copy(context, view, ratio, wanted, level, left);
    if (!left) {
      this.shownLevel = level;
      this.edited = false;
    }
    this.forget();
    return left;
  }

  private invalidate({ mask }: Painted): void {
    this.edited = true;
    for (const tile of this.tiles.values()) {
      const around = this.reach * 2 ** tile.level;
      if (
        mask.x0 - around < tile.rect.x1 &&
        mask.x0 + mask.w + around > tile.rect.x0 &&
        mask.y0 - around < tile.rect.y1 &&
        mask.y0 + mask.h + around > tile.rect.y0
      )
        tile.stale = true;
    }
  }

  private buildSome(wanted: readonly (readonly [number, number])[], level: number): boolean {
    const until = performance.now() + (this.edited ? EDIT_BUILD_MS : BUILD_MS);
    for (const [column, row] of wanted) {
      const key = `${level}/${column}/${row}`;
      const tile = this.tiles.get(key);
      if (tile && !tile.stale) continue;
      if (performance.now() > until) return true;
      this.tiles.set(key, this.built(level, column, row, tile));
    }
    return false;
  }

  private built(level: number, column: number, row: number, old: Tile | undefined): Tile {
    const size = 2 ** level;
    const span = TILE_PX * size;
    const [x0, y0] = [column * span, row * span];
    const rect = { x0, y0, x1: x0 + span, y1: y0 + span };
    this.pixels.fill(0);
    const grid = { x0, y0, width: TILE_PX, height: TILE_PX, size };
    const drawn = rasterise(this.pixels, grid, this.shapesIn(rect, size));
    let canvas = old?.canvas ?? null;
    if (!drawn) {
      if (canvas) this.spare.push(canvas);
      canvas = null;
    } else {
      canvas ??= this.spare.pop() ?? newCanvas();
      canvas.getContext('2d')!.putImageData(this.buffer, 0, 0);
    }
    return { level, rect, canvas, stale: false, used: this.clock };
  }

  private shapesIn(rect: Rect, size: number): readonly Shape[] {
    const around = this.reach * size;
    return this.byArea
      .filter(
        ({ mask }) =>
          mask.x0 - around < rect.x1 &&
          mask.x0 + mask.w + around > rect.x0 &&
          mask.y0 - around < rect.y1 &&
          mask.y0 + mask.h + around > rect.y0,
      )
      .map((object) => ({ mask: object.mask, style: styleOf(object, this.look, this.reach) }));
  }

  private copy(
    context: CanvasRenderingContext2D,
    view: Viewport,
    ratio: number,
    places: readonly (readonly [number, number])[],
    level: number,
    over: boolean,
  ): void {
    for (const [column, row] of places) {
      const tile = this.tiles.get(`${level}/${column}/${row}`);
      if (!tile) continue;
      tile.used = this.clock;
      // Whole device pixels, so that neighbouring tiles neither overlap nor leave a seam.
      const [left, top] = deviceAt(view, ratio, tile.rect.x0, tile.rect.y0);
      const [right, bottom] = deviceAt(view, ratio, tile.rect.x1, tile.rect.y1);
      if (over) context.clearRect(left, top, right - left, bottom - top);
      if (tile.canvas) context.drawImage(tile.canvas, left, top, right - left, bottom - top);
    }
  }

  private forget(): void {
    if (this.tiles.size <= MOST_TILES) return;
    const oldest = [...this.tiles].sort(([, a], [, b]) => a.used - b.used);
    for (const [key, tile] of oldest.slice(0, this.tiles.size - MOST_TILES)) {
      if (tile.used === this.clock) return;
      this.tiles.delete(key);
      if (tile.canvas && this.spare.length < 32) this.spare.push(tile.canvas);
    }
  }
}

function looksAs(a: Painted, b: Painted): boolean {
  return a.mask === b.mask && a.rgb === b.rgb && a.faint === b.faint;
}

function styleOf({ rgb, faint }: Painted, look: Look, reach: number): Style {
  return {
    fill: look.outlines ? 0 : packed(rgb, look.opacity * (faint ? 0.4 : 1)),
    edge: packed(rgb, look.outlines ? 1 : Math.min(1, look.opacity + 0.45)),
    halo: packed([8, 10, 14], Math.min(0.6, look.opacity + 0.1)),
    reach,
  };
}

/** Columns and rows of the tiles over a part of the image. */
export function tilesOver(rect: Rect, level: number): readonly (readonly [number, number])[] {
  const span = TILE_PX * 2 ** level;
  const tiles: [number, number][] = [];
  for (let row = Math.floor(rect.y0 / span); row * span < rect.y1; row++)
    for (let column = Math.floor(rect.x0 / span); column * span < rect.x1; column++)
      tiles.push([column, row]);
  return tiles;
}

function deviceAt(view: Viewport, ratio: number, x: number, y: number): [number, number] {
  const [left, top] = toScreen(view, x, y);
  return [Math.round(left * ratio), Math.round(top * ratio)];
}

function newCanvas(): HTMLCanvasElement {
  const canvas = document.createElement('canvas');
  canvas.width = canvas.height = TILE_PX;
  return canvas;
}
