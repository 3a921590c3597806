// Wheels, tools and keys.

import { describe, expect, it } from 'vitest';
import {
  readable,
  sheetRows,
  shortcutFor,
  shortcutOf,
  SHORTCUTS,
  type KeyPress,
} from '../../src/lib/editor/shortcuts';
import {
  FIRST_TOOL,
  resizedBrush,
  thinned,
  toolChosen,
  toolDown,
  toolUp,
  toolUsed,
} from '../../src/lib/editor/tools';
import { NO_WHEEL, recogniseWheel, type WheelInput } from '../../src/lib/editor/wheel';

describe('a wheel', () => {
  const turn: WheelInput = {
    deltaX: 0,
    deltaY: -100,
    deltaMode: 0,
    ctrl: false,
    shift: false,
    alt: false,
    t: 0,
  };
  const meant = (more: Partial<WheelInput>) => recogniseWheel(NO_WHEEL, { ...turn, ...more })[1];

  it('zooms, in and out by the same factor', () => {
    const [into, out] = [meant({}), meant({ deltaY: 100 })];
    if (into.type !== 'zoom' || out.type !== 'zoom') throw new Error('not a zoom');
    expect(into.factor).toBeGreaterThan(1);
    expect(into.factor * out.factor).toBeCloseTo(1);
    expect(meant({ deltaMode: 1, deltaY: -3 }).type).toBe('zoom');
  });

  it('changes the brush with Alt and pans sideways with Shift', () => {
    expect(meant({ alt: true })).toMatchObject({ type: 'brush' });
    expect(meant({ shift: true })).toEqual({ type: 'pan', dx: 100, dy: 0 });
  });

  it('of a trackpad pans with two fingers and zooms with a pinch', () => {
    expect(meant({ deltaX: 3, deltaY: 7 })).toEqual({ type: 'pan', dx: -3, dy: -7 });
    expect(meant({ deltaY: -4, ctrl: true }).type).toBe('zoom');
  });

  it('keeps its meaning within a burst: a fast swipe does not zoom', () => {
    const [first] = recogniseWheel(NO_WHEEL, { ...turn, deltaY: 4 });
    expect(recogniseWheel(first, { ...turn, deltaY: 180, t: 20 })[1].type).toBe('pan');
    expect(recogniseWheel(first, { ...turn, deltaY: 180, t: 900 })[1].type).toBe('zoom');
  });
});

describe('a tool key', () => {
  it('that is tapped stays on until it is tapped again', () => {
    const on = toolUp(toolDown(FIRST_TOOL, 'brush', 0), 'brush', 100);
    expect(on.tool).toBe('brush');
    expect(toolUp(toolDown(on, 'brush', 500), 'brush', 600).tool).toBe('prompt');
  });

  it('that is held is on while it is held', () => {
    const down = toolDown(FIRST_TOOL, 'eraser', 0);
    expect(down.tool).toBe('eraser');
    expect(toolUp(down, 'eraser', 900).tool).toBe('prompt');
  });

  it('is held, however short, when a stroke was made with it', () => {
    const used = toolUsed(toolDown(FIRST_TOOL, 'eraser', 0));
    expect(toolUp(used, 'eraser', 90).tool).toBe('prompt');
  });

  it('held over another tool gives that one back', () => {
    const brush = toolChosen(FIRST_TOOL, 'brush');
    expect(toolUp(toolDown(brush, 'eraser', 0), 'eraser', 900).tool).toBe('brush');
    expect(toolChosen(brush, 'brush').tool).toBe('prompt');
  });
});

describe('the brush', () => {
  it('changes its size by at least a pixel per step and stays within reason', () => {
    expect(resizedBrush({ ...FIRST_TOOL, radius: 2 }, 1.15).radius).toBe(3);
    expect(resizedBrush({ ...FIRST_TOOL, radius: 1 }, 1 / 1.15).radius).toBe(1);
    expect(resizedBrush({ ...FIRST_TOOL, radius: 150 }, 2).radius).toBe(160);
  });

  it('keeps the ends of a stroke and drops what it does not need between', () => {
    const points = Array.from({ length: 101 }, (_, i) => [i / 10, 5] as const);
    const kept = thinned(points, 10);
    expect(kept[0]).toEqual([0, 5]);
    expect(kept.at(-1)).toEqual([10, 5]);
    expect(kept.length).toBeLessThan(12);
  });
});

describe('shortcuts', () => {
  const press = (key: string, more: Partial<KeyPress> = {}): KeyPress => ({
    key,
    ctrlKey: false,
    metaKey: false,
    shiftKey: false,
    altKey: false,
    ...more,
  });
  const commandOf = (key: string, more: Partial<KeyPress> = {}) =>
    shortcutOf(press(key, more))?.command ?? null;

  it('are found with caps lock on too, but not with another modifier', () => {
    expect(commandOf('B')).toBe('brush');
    expect(commandOf('B', { shiftKey: true })).toBeNull();
    expect(commandOf('b', { altKey: true })).toBeNull();
  });

  it('tell undo from redo', () => {
    expect(commandOf('z', { ctrlKey: true })).toBe('undo');
    expect(commandOf('Z', { metaKey: true, shiftKey: true })).toBe('redo');
    expect(commandOf('y', { ctrlKey: true })).toBe('redo');
    expect(commandOf('z')).toBe('zoom-object');
  });

  it("leave the browser's own keys alone", () => {
    for (const key of ['s', 'b', 'h', 'f', '0', '+', '-', 'p'])
      expect(commandOf(key, { ctrlKey: true })).toBeNull();
    expect(commandOf('ArrowLeft', { altKey: true })).toBeNull();
  });

  it('read brackets and signs as they are printed, on any layout', () => {
    expect(commandOf('?', { shiftKey: true })).toBe('help');
    expect(commandOf('[', { ctrlKey: true, altKey: true })).toBe('smaller'); // AltGr
    expect(commandOf('+', { shiftKey: true })).toBe('zoom-in');
    expect(commandOf('ArrowUp', { shiftKey: true })).toBe('up');
    expect(commandOf('Tab', { shiftKey: true })).toBe('previous');
    expect(commandOf(' ')).toBe('pan');
  });

  it('are each on one key only', () => {
    const chords = SHORTCUTS.flatMap(({ shortcuts }) => shortcuts.flatMap(({ keys }) => keys));
    expect(new Set(chords.map((chord) => chord.toLowerCase())).size).toBe(chords.length);
  });

  it('leave A, R and N to the review', () => {
    for (const key of ['a', 'r', 'n']) expect(commandOf(key)).toBeNull();
  });

  it('are all on the sheet, alone or in a row with others', () => {
    const shown = SHORTCUTS.flatMap((group) => sheetRows(group, false));
    expect(shown.map(({ does }) => does)).toContain('Move the crosshair; finer with Shift');
    expect(shown.every(({ keys, does }) => keys.length > 0 && does.length > 0)).toBe(true);
    expect(readable(shortcutFor('redo').keys[0]!, true)).toEqual(['⌘', '⇧', 'Z']);
  });
});
