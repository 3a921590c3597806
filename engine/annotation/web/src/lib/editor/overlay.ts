// Draws a scene: preview, mask in progress, highlight, live stroke and box, prompts, brush and crosshair.
// The context is clipped to what changed before this is called.

import { packed, reachFor, type Style } from './raster';
import { CROSSHAIR_PX, MARK_PX, type Scene } from './scene';
import { MaskSprite } from './sprite';
import { toScreen, type Extent, type Viewport } from './viewport';

const ACCENT: readonly [number, number, number] = [64, 156, 255];
const FOREGROUND = 'rgb(24 160 88)';
const BACKGROUND = 'rgb(214 56 56)';
const DARK = 'rgb(8 10 14 / 0.75)';
const WHITE = [255, 255, 255] as const;

export interface Surface {
  readonly image: Extent;
  /** CSS pixels. */
  readonly canvas: Extent;
  readonly ratio: number;
}

export class Overlay {
  private readonly current = new MaskSprite();
  private readonly hovered = new MaskSprite();
  private readonly preview = new MaskSprite();

  draw(context: CanvasRenderingContext2D, scene: Scene, surface: Surface): void {
    const { ratio } = surface;
    const reach = reachFor(ratio);
    if (!scene.hidden) this.masks(context, scene, surface, reach);
    context.save();
    context.scale(ratio, ratio);
    if (scene.stroke?.mode === 'brush' && !scene.hidden) liveStroke(context, scene);
    if (scene.box) box(context, scene.box, scene.view, true);
    if (!scene.hidden) prompts(context, scene);
    if (scene.brush) brush(context, scene.brush);
    if (scene.crosshair) crosshair(context, scene.crosshair);
    context.restore();
  }

  private masks(
    context: CanvasRenderingContext2D,
    scene: Scene,
    surface: Surface,
    reach: number,
  ): void {
    const { view } = scene;
    const { image, canvas, ratio } = surface;
    if (scene.mask)
      this.current.draw(
        context,
        scene.mask,
        currentStyle(scene, reach),
        view,
        image,
        canvas,
        ratio,
      );
    if (scene.stroke?.mode === 'eraser') {
      context.save();
      context.scale(ratio, ratio);
      context.globalCompositeOperation = 'destination-out';
      strokePath(context, scene, 'black');
      context.restore();
    }
    if (scene.hovered) {
      const style = hoverStyle(scene.hovered, reach);
      this.hovered.draw(context, scene.hovered.mask, style, view, image, canvas, ratio);
    }
    if (scene.preview)
      this.preview.draw(context, scene.preview, previewStyle(reach), view, image, canvas, ratio);
  }
}

function currentStyle(scene: Scene, reach: number): Style {
  return {
    fill: scene.outlines ? 0 : packed(ACCENT, Math.min(0.55, scene.opacity + 0.05)),
    edge: packed(WHITE, scene.waiting ? 0.6 : 1),
    halo: packed([8, 20, 48], 0.85),
    reach,
  };
}

/** From the list people look for it: there it lights up; under the pointer a line is enough. */
function hoverStyle(hovered: NonNullable<Scene['hovered']>, reach: number): Style {
  return {
    fill: hovered.strong ? packed(hovered.rgb, 0.45) : 0,
    edge: packed(WHITE, 1),
    halo: packed([8, 10, 14], 0.7),
    reach,
  };
}

function previewStyle(reach: number): Style {
  return {
    fill: packed(ACCENT, 0.16),
    edge: packed(ACCENT, 0.9),
    halo: packed([8, 10, 14], 0.35),
    reach,
  };
}

function liveStroke(context: CanvasRenderingContext2D, scene: Scene): void {
  strokePath(context, scene, `rgb(${ACCENT.join(' ')} / 0.5)`);
}

function strokePath(
  context: CanvasRenderingContext2D,
  { stroke, view }: Scene,
  colour: string,
): void {
  const first = stroke?.points[0];
  if (!stroke || !first) return;
  context.lineCap = context.lineJoin = 'round';
  context.lineWidth = 2 * stroke.radius * view.scale;
  context.strokeStyle = colour;
  context.beginPath();
  context.moveTo(...toScreen(view, first[0], first[1]));
  for (const [x, y] of stroke.points) context.lineTo(...toScreen(view, x, y));
  context.stroke();
}

function box(
  context: CanvasRenderingContext2D,
  rect: { x0: number; y0: number; x1: number; y1: number },
  view: Viewport,
  live: boolean,
): void {
  const [left, top] = toScreen(view, rect.x0, rect.y0);
  const [right, bottom] = toScreen(view, rect.x1, rect.y1);
  context.setLineDash([]);
  context.lineWidth = 3;
  context.strokeStyle = DARK;
  context.strokeRect(left, top, right - left, bottom - top);
  context.lineWidth = 1.5;
  context.strokeStyle = 'white';
  if (!live) context.setLineDash([5, 4]);
  context.strokeRect(left, top, right - left, bottom - top);
  context.setLineDash([]);
}

function prompts(context: CanvasRenderingContext2D, scene: Scene): void {
  for (const prompt of scene.prompts)
    if (prompt.kind === 'box') box(context, prompt, scene.view, false);
  scene.prompts.forEach((prompt, at) => {
    if (prompt.kind !== 'point') return;
    const newest = at === scene.prompts.length - 1;
    const [x, y] = toScreen(scene.view, prompt.x, prompt.y);
    mark(context, x, y, prompt.label, scene.waiting && newest);
  });
}

/** Told apart by colour and by sign: plus belongs to the object, minus does not. */
function mark(
  context: CanvasRenderingContext2D,
  x: number,
  y: number,
  label: 0 | 1,
  waiting: boolean,
): void {
  const radius = MARK_PX - 3;
  context.beginPath();
  context.arc(x, y, radius + 2.25, 0, 2 * Math.PI);
  context.fillStyle = DARK;
  context.fill();
  context.beginPath();
  context.arc(x, y, radius + 1.25, 0, 2 * Math.PI);
  context.fillStyle = 'white';
  context.fill();
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = label === 1 ? FOREGROUND : BACKGROUND;
  context.globalAlpha = waiting ? 0.55 : 1;
  context.fill();
  context.globalAlpha = 1;
  context.strokeStyle = 'white';
  context.lineWidth = 1.75;
  context.lineCap = 'round';
  context.beginPath();
  context.moveTo(x - 3, y);
  context.lineTo(x + 3, y);
  if (label === 1) {
    context.moveTo(x, y - 3);
    context.lineTo(x, y + 3);
  }
  context.stroke();
}

function brush(context: CanvasRenderingContext2D, cursor: NonNullable<Scene['brush']>): void {
  const ring = (radius: number, colour: string, width: number): void => {
    context.beginPath();
    context.arc(cursor.x, cursor.y, Math.max(0.5, radius), 0, 2 * Math.PI);
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.stroke();
  };
  ring(cursor.radius, DARK, 3);
  ring(cursor.radius, 'white', 1.25);
  context.strokeStyle = 'white';
  context.lineWidth = 1.25;
  context.beginPath();
  context.moveTo(cursor.x - 3, cursor.y);
  context.lineTo(cursor.x + 3, cursor.y);
  if (cursor.mode === 'brush') {
    context.moveTo(cursor.x, cursor.y - 3);
    context.lineTo(cursor.x, cursor.y + 3);
  }
  context.stroke();
}

function crosshair(context: CanvasRenderingContext2D, [x, y]: readonly [number, number]): void {
  const lines = (): void => {
    context.beginPath();
    for (const [dx, dy] of [
      [1, 0],
      [-1, 0],
      [0, 1],
      [0, -1],
    ] as const) {
      context.moveTo(x + dx * 5, y + dy * 5);
      context.lineTo(x + dx * (CROSSHAIR_PX - 2), y + dy * (CROSSHAIR_PX - 2));
    }
    context.stroke();
  };
  context.lineCap = 'round';
  context.strokeStyle = DARK;
  context.lineWidth = 4;
  lines();
  context.strokeStyle = 'white';
  context.lineWidth = 1.75;
  lines();
}
