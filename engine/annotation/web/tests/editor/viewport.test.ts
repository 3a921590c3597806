// Between image pixels and screen pixels.

import { describe, expect, it } from 'vitest';
import { moveCrosshair, onImage } from '../../src/lib/editor/crosshair';
import {
  fitted,
  fittedTo,
  MAX_SCALE,
  panBy,
  resized,
  toImage,
  toScreen,
  visibleRect,
  zoomAt,
} from '../../src/lib/editor/viewport';

const IMAGE = { width: 6000, height: 4000 };
const CANVAS = { width: 1000, height: 700 };

describe('zooming', () => {
  it('keeps the image point under the pointer, in and out', () => {
    let view = fitted(IMAGE, CANVAS);
    const before = toImage(view, 430, 320);
    for (const factor of [1.3, 2, 1.7, 1 / 1.9, 3, 1 / 2.2]) {
      view = zoomAt(view, factor, 430, 320, IMAGE, CANVAS);
      const [x, y] = toImage(view, 430, 320);
      expect(x).toBeCloseTo(before[0], 6);
      expect(y).toBeCloseTo(before[1], 6);
    }
  });

  it('ends at sensible scales', () => {
    const view = fitted(IMAGE, CANVAS);
    expect(zoomAt(view, 1e9, 10, 10, IMAGE, CANVAS).scale).toBe(MAX_SCALE);
    expect(zoomAt(view, 1e-9, 10, 10, IMAGE, CANVAS).scale).toBeCloseTo(view.scale / 2);
  });

  it('goes back and forth between the two frames', () => {
    const view = { scale: 0.37, x: -41.5, y: 12.25 };
    const [x, y] = toImage(view, ...toScreen(view, 1234.5, 77.25));
    expect(x).toBeCloseTo(1234.5, 9);
    expect(y).toBeCloseTo(77.25, 9);
  });
});

describe('fitting', () => {
  it('shows the whole image in the middle', () => {
    const view = fitted(IMAGE, CANVAS);
    const [left, top] = toScreen(view, 0, 0);
    const [right, bottom] = toScreen(view, IMAGE.width, IMAGE.height);
    expect(left).toBeCloseTo(CANVAS.width - right);
    expect(top).toBeCloseTo(CANVAS.height - bottom);
    expect(left).toBeGreaterThan(0);
    expect(visibleRect(view, IMAGE, CANVAS)).toEqual({ x0: 0, y0: 0, x1: 6000, y1: 4000 });
  });

  it('to a mask puts it in the middle, as large as is useful', () => {
    const view = fittedTo({ x0: 3000, y0: 2000, x1: 3200, y1: 2100 }, IMAGE, CANVAS);
    const [x, y] = toScreen(view, 3100, 2050);
    expect([x, y]).toEqual([500, 350]);
    expect(200 * view.scale).toBeCloseTo(600);
  });
});

describe('panning', () => {
  it('never loses the image', () => {
    const view = panBy(fitted(IMAGE, CANVAS), 1e6, -1e6, IMAGE, CANVAS);
    const rect = visibleRect(view, IMAGE, CANVAS);
    expect(rect).not.toBeNull();
    expect((rect!.x1 - rect!.x0) * view.scale).toBeGreaterThan(60);
  });

  it('keeps the middle in the middle when the window changes', () => {
    const view = zoomAt(fitted(IMAGE, CANVAS), 5, 500, 350, IMAGE, CANVAS);
    const before = toImage(view, 500, 350);
    const after = resized(view, CANVAS, { width: 600, height: 500 }, IMAGE);
    expect(toImage(after, 300, 250)).toEqual([
      expect.closeTo(before[0], 6),
      expect.closeTo(before[1], 6),
    ]);
  });

  it('shows nothing of an image that lies outside', () => {
    expect(visibleRect({ scale: 1, x: 2000, y: 0 }, IMAGE, CANVAS)).toBeNull();
  });
});

describe('the crosshair', () => {
  const view = { scale: 2, x: 0, y: 0 };

  it('moves in steps, faster while a key repeats, by single pixels with Shift', () => {
    const moved = (fine: boolean, repeats: number) =>
      moveCrosshair([200, 200], 'right', fine, repeats, view, IMAGE, CANVAS).at;
    expect(moved(false, 0)).toEqual([210, 200]);
    expect(moved(false, 20)).toEqual([232, 200]);
    expect(moved(true, 0)).toEqual([202, 200]);
  });

  it('pulls the image along at the margin and points at the next place of it', () => {
    const { at, view: after } = moveCrosshair([955, 200], 'right', false, 0, view, IMAGE, CANVAS);
    expect(at[0]).toBeLessThan(965);
    expect(toImage(after, ...at)[0]).toBeCloseTo(965 / 2);
  });

  it('stays on the image', () => {
    expect(toImage(view, ...onImage([-500, 9e9], view, IMAGE))).toEqual([0.5, 3999.5]);
  });
});
