// Three canvases on top of each other: image, committed masks, and what is in progress. Changes are
// gathered and drawn once per animation frame; a pointer that moves redraws the little it touches.

import { Overlay } from './overlay';
import { ImagePyramid } from './pyramid';
import { reachFor } from './raster';
import { dirtyOf, EMPTY_SCENE, hull, type Scene } from './scene';
import { TileLayer, type Look, type Painted } from './tiles';
import type { TaskImage } from '../types';
import type { Extent, Rect } from './viewport';

export interface Layers {
  readonly image: HTMLCanvasElement;
  readonly masks: HTMLCanvasElement;
  readonly overlay: HTMLCanvasElement;
}

export class Renderer {
  private readonly contexts: Record<keyof Layers, CanvasRenderingContext2D>;
  private readonly pyramid: ImagePyramid;
  private readonly tiles = new TileLayer();
  private readonly overlay = new Overlay();
  private scene: Scene = EMPTY_SCENE;
  private canvas: Extent = { width: 1, height: 1 };
  private ratio = 1;
  private imageStale = true;
  private masksStale = true;
  private dirty: Rect | 'all' | null = 'all';
  private frame = 0;
  private readonly waiting: (() => void)[] = [];
  /** How long the last frames took to draw, in milliseconds. */
  readonly drawTimes: number[] = [];

  constructor(
    private readonly layers: Layers,
    private readonly image: TaskImage,
  ) {
    this.contexts = {
      image: contextOf(layers.image),
      masks: contextOf(layers.masks),
      overlay: contextOf(layers.overlay),
    };
    this.pyramid = new ImagePyramid(image, () => {
      this.imageStale = true;
      this.schedule();
    });
  }

  load(signal: AbortSignal): Promise<void> {
    return this.pyramid.load(signal);
  }

  /** The size of the canvases, in CSS and in device pixels. */
  resize(canvas: Extent, device: Extent): void {
    this.canvas = canvas;
    this.ratio = device.width / canvas.width;
    for (const layer of Object.values(this.layers)) {
      layer.width = device.width;
      layer.height = device.height;
    }
    this.stale();
    this.draw(); // a resized canvas is blank: not for a frame longer than must be
  }

  setObjects(objects: readonly Painted[], look: Look): void {
    this.tiles.setObjects(objects);
    this.tiles.setLook(look, reachFor(this.ratio));
    this.masksStale = true;
    this.schedule();
  }

  setScene(scene: Scene): void {
    const { scene: before } = this;
    if (scene === before) return;
    const dirty = dirtyOf(before, scene);
    this.scene = scene;
    if (scene.view !== before.view) this.imageStale = this.masksStale = true;
    if (scene.hidden !== before.hidden)
      this.layers.masks.style.visibility = scene.hidden ? 'hidden' : 'visible';
    if (dirty === null) return;
    this.dirty =
      this.dirty === 'all' || dirty === 'all'
        ? 'all'
        : this.dirty
          ? hull(this.dirty, dirty)
          : dirty;
    this.schedule();
  }

  /** Call back once what was set until now is on screen. */
  whenShown(callback: () => void): void {
    this.waiting.push(callback);
    this.schedule();
  }

  destroy(): void {
    cancelAnimationFrame(this.frame);
    this.pyramid.close();
  }

  private stale(): void {
    this.imageStale = this.masksStale = true;
    this.dirty = 'all';
  }

  private schedule(): void {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.draw();
    });
  }

  private draw(): void {
    const began = performance.now();
    const { scene, canvas, ratio, image } = this;
    if (this.imageStale) {
      clear(this.contexts.image, this.layers.image);
      this.pyramid.draw(this.contexts.image, scene.view, canvas, ratio);
      this.imageStale = false;
    }
    if (this.masksStale && !scene.hidden) {
      clear(this.contexts.masks, this.layers.masks);
      this.masksStale = this.tiles.draw(this.contexts.masks, scene.view, image, canvas, ratio);
    }
    if (this.dirty !== null) this.drawOverlay(this.dirty);
    this.dirty = null;
    this.drawTimes.push(performance.now() - began);
    if (this.drawTimes.length > 600) this.drawTimes.shift();
    if (this.masksStale && !scene.hidden) this.schedule();
    this.announce();
  }

  private drawOverlay(dirty: Rect | 'all'): void {
    const context = this.contexts.overlay;
    const { width, height } = this.layers.overlay;
    const rect =
      dirty === 'all' ? { x0: 0, y0: 0, x1: width, y1: height } : scaled(dirty, this.ratio);
    context.save();
    context.beginPath();
    context.rect(rect.x0, rect.y0, rect.x1 - rect.x0, rect.y1 - rect.y0);
    context.clip();
    context.clearRect(rect.x0, rect.y0, rect.x1 - rect.x0, rect.y1 - rect.y0);
    const { image, canvas, ratio } = this;
    this.overlay.draw(context, this.scene, { image, canvas, ratio });
    context.restore();
  }

  /** After the frame at hand was handed over: a message comes once rendering is done. */
  private announce(): void {
    if (this.waiting.length === 0) return;
    const callbacks = this.waiting.splice(0);
    const channel = new MessageChannel();
    channel.port1.onmessage = () => {
      channel.port1.close();
      for (const callback of callbacks) callback();
    };
    channel.port2.postMessage(null);
  }
}

function contextOf(canvas: HTMLCanvasElement): CanvasRenderingContext2D {
  const context = canvas.getContext('2d');
  if (!context) throw new Error('this browser gave no 2d canvas');
  return context;
}

function clear(context: CanvasRenderingContext2D, canvas: HTMLCanvasElement): void {
  context.clearRect(0, 0, canvas.width, canvas.height);
}

function scaled(rect: Rect, ratio: number): Rect {
  return {
    x0: Math.floor(rect.x0 * ratio) - 1,
    y0: Math.floor(rect.y0 * ratio) - 1,
    x1: Math.ceil(rect.x1 * ratio) + 1,
    y1: Math.ceil(rect.y1 * ratio) + 1,
  };
}
