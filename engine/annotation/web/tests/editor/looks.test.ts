// What is drawn: pixels of masks, colours, what changed on screen, rows of the list.

import { describe, expect, it } from 'vitest';
import { maskOfBits } from '../../src/lib/masks';
import { colourFor, PALETTE } from '../../src/lib/editor/colours';
import { objectsAt } from '../../src/lib/editor/hit';
import { levelFor, mixed, packed, rasterise, type Grid } from '../../src/lib/editor/raster';
import { areaText, rowsOf, scrollTo, sliceOf } from '../../src/lib/editor/rows';
import { dirtyOf, EMPTY_SCENE, type Scene } from '../../src/lib/editor/scene';
import { said } from '../../src/lib/editor/status';
import { tilesOver } from '../../src/lib/editor/tiles';
import { after, begin, square, withSquares } from './helpers';

const STYLE = {
  fill: packed([255, 0, 0], 0.4),
  edge: packed([255, 0, 0], 1),
  halo: packed([0, 0, 0], 0.5),
  reach: 2,
};

function drawn(grid: Grid, ...masks: ReturnType<typeof square>[]): Uint32Array {
  const pixels = new Uint32Array(grid.width * grid.height);
  rasterise(
    pixels,
    grid,
    masks.map((mask) => ({ mask, style: STYLE })),
  );
  return pixels;
}

const WHOLE: Grid = { x0: 0, y0: 0, width: 100, height: 80, size: 1 };

describe('the pixels of a mask', () => {
  it('are fill inside, edge at the border, halo outside and nothing further away', () => {
    const pixels = drawn(WHOLE, square(20, 20, 20));
    const at = (x: number, y: number) => pixels[y * WHOLE.width + x];
    expect(at(30, 30)).toBe(STYLE.fill);
    expect(at(20, 30)).toBe(STYLE.edge);
    expect((at(19, 30) ?? 0) >>> 24).toBeGreaterThan(60);
    expect(at(17, 30)).toBe(0);
  });

  it('are covered exactly where the mask is set', () => {
    const bits = Uint8Array.from({ length: 30 * 30 }, (_, i) => Number((i * 7919) % 5 < 2));
    const mask = maskOfBits(100, 80, 40, 30, 30, 30, bits);
    const pixels = drawn(WHOLE, mask);
    const strong = packed([255, 0, 0], 0.4) >>> 24;
    for (let y = 0; y < 80; y++)
      for (let x = 0; x < 100; x++) {
        const inWindow = x >= 40 && x < 70 && y >= 30 && y < 60;
        const set = inWindow && bits[(y - 30) * 30 + x - 40] === 1;
        const pixel = pixels[y * 100 + x]!;
        // Red is the mask's, black the halo's.
        expect((pixel & 255) > 0 && pixel >>> 24 >= strong).toBe(set);
      }
  });

  it('are the same whether drawn at once or tile by tile', () => {
    const mask = square(13, 17, 40);
    const whole = drawn(WHOLE, mask);
    for (const [x0, y0] of [
      [0, 0],
      [50, 0],
      [0, 40],
      [50, 40],
    ] as const) {
      const tile = drawn({ x0, y0, width: 50, height: 40, size: 1 }, mask);
      for (let y = 0; y < 40; y++)
        for (let x = 0; x < 50; x++) expect(tile[y * 50 + x]).toBe(whole[(y0 + y) * 100 + x0 + x]);
    }
  });

  it('follow the zoom: each grid pixel shows the mask at its centre', () => {
    const pixels = drawn({ x0: 0, y0: 0, width: 25, height: 20, size: 4 }, square(20, 20, 40));
    expect(pixels[10 * 25 + 10]).toBe(STYLE.fill);
    expect(pixels[4 * 25 + 10]! & 255).toBe(0);
    expect(pixels[5 * 25 + 10]).toBe(STYLE.edge);
    const close = drawn({ x0: 18, y0: 18, width: 32, height: 32, size: 0.25 }, square(20, 20, 40));
    expect(close[20 * 32 + 20]).toBe(STYLE.fill);
    expect(close[2 * 32 + 2]).toBe(0);
  });

  it('show the smaller mask where two lie on each other', () => {
    const other = { ...STYLE, fill: packed([0, 0, 255], 0.4), edge: packed([0, 0, 255], 1) };
    const pixels = new Uint32Array(100 * 80);
    const shapes = [
      { mask: square(10, 10, 40), style: STYLE },
      { mask: square(20, 20, 12), style: other },
    ];
    rasterise(pixels, WHOLE, shapes);
    expect(pixels[26 * 100 + 26]).toBe(other.fill);
    expect(pixels[40 * 100 + 40]).toBe(STYLE.fill);
  });

  it('blend between two colours, and keep the colour where one is nothing', () => {
    expect(mixed(0, packed([10, 20, 30], 1), 0.5)).toBe(packed([10, 20, 30], 128 / 255));
    expect(mixed(packed([0, 0, 0], 1), packed([100, 200, 50], 1), 1)).toBe(
      packed([100, 200, 50], 1),
    );
  });

  it('are as fine as the screen, within a factor of the root of two', () => {
    for (const scale of [0.1, 0.17, 0.5, 0.9, 1, 2.3, 7]) {
      const ratio = scale * 2 ** levelFor(scale);
      expect(ratio).toBeGreaterThan(0.7);
      expect(ratio).toBeLessThan(1.42);
    }
  });
});

describe('tiles', () => {
  it('cover what is in view and nothing else', () => {
    expect(tilesOver({ x0: 250, y0: 0, x1: 520, y1: 256 }, 0)).toEqual([
      [0, 0],
      [1, 0],
      [2, 0],
    ]);
    expect(tilesOver({ x0: 0, y0: 0, x1: 6000, y1: 4000 }, 2)).toHaveLength(6 * 4);
  });
});

describe('colours', () => {
  it('differ between neighbours', () => {
    const objects: { mask: ReturnType<typeof square>; colour: number }[] = [];
    for (let y = 0; y < 3; y++)
      for (let x = 0; x < 3; x++) {
        const mask = square(x * 10, y * 10, 10);
        objects.push({ mask, colour: colourFor(mask, objects) });
      }
    expect(new Set(objects.map(({ colour }) => colour)).size).toBe(9);
  });

  it('are used evenly when nothing is near', () => {
    const objects = PALETTE.map((_, colour) => ({ mask: square(0, 0, 5), colour }));
    expect(colourFor(square(80, 60, 5), objects.slice(0, -1))).toBe(PALETTE.length - 1);
  });
});

describe('hits', () => {
  it('come smallest first', () => {
    const { objects } = withSquares([10, 10, 40], [20, 20, 10], [60, 10, 15]).doc;
    expect(objectsAt(objects, 25, 25).map(({ id }) => id)).toEqual(['square-2', 'square-1']);
    expect(objectsAt(objects, 95, 75)).toEqual([]);
  });
});

describe('what is drawn again', () => {
  const base: Scene = { ...EMPTY_SCENE, view: { scale: 2, x: 10, y: 20 } };

  it('is nothing when nothing changed, and all when the view did', () => {
    expect(dirtyOf(base, base)).toBeNull();
    expect(dirtyOf(base, { ...base })).toBeNull();
    expect(dirtyOf(base, { ...base, view: { ...base.view } })).toBe('all');
  });

  it('is nothing when a value was only made again', () => {
    const mask = square(10, 10, 5);
    const scene = (): Scene => ({
      ...base,
      hovered: { mask, rgb: PALETTE[0]!, strong: false },
      brush: { x: 1, y: 2, radius: 3, mode: 'brush' },
    });
    expect(dirtyOf(scene(), scene())).toBeNull();
    expect(dirtyOf(scene(), { ...scene(), hovered: null })).not.toBeNull();
  });

  it('is the brush, where it was and where it is', () => {
    const brush = { x: 100, y: 100, radius: 10, mode: 'brush' } as const;
    const moved = { ...brush, x: 130 };
    const rect = dirtyOf({ ...base, brush }, { ...base, brush: moved });
    expect(rect).toEqual({ x0: 86, y0: 86, x1: 144, y1: 114 });
  });

  it('is only the new end of a growing stroke', () => {
    const first = [0, 0] as const;
    const stroke = { mode: 'brush', radius: 2, points: [first, [50, 0] as const] } as const;
    const grown = { ...stroke, points: [...stroke.points, [52, 0] as const] };
    const rect = dirtyOf({ ...base, stroke }, { ...base, stroke: grown });
    if (rect === null || rect === 'all') throw new Error('a rectangle expected');
    expect(rect.x0).toBeGreaterThan(100);
    expect(rect.x1).toBeLessThan(125);
  });

  it('is the window of a mask that comes or goes', () => {
    const rect = dirtyOf(base, { ...base, mask: square(10, 10, 5) });
    expect(rect).toEqual({ x0: 24, y0: 34, x1: 46, y1: 56 });
  });
});

describe('the list', () => {
  it('has rows for objects, then for deleted ones', () => {
    const { doc } = after(withSquares([10, 10, 5], [30, 10, 5]), {
      type: 'delete',
      id: 'square-1',
    });
    const rows = rowsOf(doc.objects, doc.deleted);
    expect(rows.map((row) => (row.kind === 'heading' ? row.text : row.object.id))).toEqual([
      'square-2',
      'Deleted (1)',
      'square-1',
    ]);
  });

  it('keeps only the rows in view in the document', () => {
    const { first, last } = sliceOf(500, 46, 4600, 700);
    expect(first).toBeLessThanOrEqual(100);
    expect(last).toBeGreaterThanOrEqual(116);
    expect(last - first).toBeLessThan(40);
    expect(sliceOf(3, 46, 9999, 700)).toEqual({ first: 3, last: 3 });
  });

  it('scrolls as little as brings a row into view', () => {
    expect(scrollTo(10, 46, 0, 700)).toBeNull();
    expect(scrollTo(20, 46, 0, 700)).toBe(21 * 46 - 700);
    expect(scrollTo(2, 46, 400, 700)).toBe(92);
  });

  it('writes areas short', () => {
    expect([412, 3840, 38_400, 999_949, 1_200_000].map(areaText)).toEqual([
      '412 px',
      '3.8k px',
      '38k px',
      '1000k px',
      '1.2M px',
    ]);
  });
});

describe('the status line', () => {
  it('puts a failing model first, then what happened, then what to do', () => {
    const { doc } = begin();
    const failed = { phase: 'failed', reason: 'no network', retryInMs: 4000 } as const;
    const ready = { phase: 'ready', kind: 'browser', milliseconds: 20 } as const;
    expect(said('Took back: the click.', failed, doc, 'annotate', 'prompt')).toEqual({
      text: expect.stringMatching(/no network.*brush and eraser work/),
      tone: 'bad',
    });
    expect(said('Took back: the click.', ready, doc, 'annotate', 'prompt').text).toMatch(/Took/);
    expect(said(null, ready, doc, 'annotate', 'prompt').text).toMatch(/Click an object/);
  });
});
