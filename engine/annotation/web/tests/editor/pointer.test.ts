// Gestures: what mice, pens and fingers mean.

import { describe, expect, it } from 'vitest';
import {
  IDLE,
  isBusy,
  recognise,
  type Gesture,
  type Input,
  type Mode,
  type PointerInput,
  type PointerState,
} from '../../src/lib/editor/pointer';

const PROMPT: Mode = { tool: 'prompt', panning: false };
const BRUSH: Mode = { tool: 'brush', panning: false };
const ERASER: Mode = { tool: 'eraser', panning: false };

function input(kind: PointerInput['kind'], x: number, y: number, more: Partial<PointerInput> = {}) {
  const base = { id: 1, device: 'mouse', button: 0, t: 0, shift: false, other: false } as const;
  return { ...base, kind, x, y, trail: [[x, y]], ...more } satisfies PointerInput;
}

function play(mode: Mode, ...inputs: Input[]): { gestures: Gesture[]; state: PointerState } {
  let state = IDLE;
  const gestures: Gesture[] = [];
  for (const one of inputs) {
    const [next, made] = recognise(state, one, mode);
    state = next;
    gestures.push(...made);
  }
  return { gestures: gestures.filter(({ type }) => type !== 'disarm'), state };
}

const finger = (id: number) => ({ id, device: 'touch' as const });
const pen = { id: 9, device: 'pen' as const };

describe('a mouse', () => {
  it('clicks with the left button: foreground, where it was pressed', () => {
    const { gestures } = play(
      PROMPT,
      input('down', 10, 10),
      input('move', 12, 11),
      input('up', 12, 11, { t: 77 }),
    );
    expect(gestures).toEqual([{ type: 'click', x: 10, y: 10, label: 1, t: 77 }]);
  });

  it('clicks with the right button, or with Alt or Control: background', () => {
    for (const more of [{ button: 2 }, { other: true }]) {
      const { gestures } = play(PROMPT, input('down', 10, 10, more), input('up', 10, 10, more));
      expect(gestures).toEqual([{ type: 'click', x: 10, y: 10, label: 0, t: 0 }]);
    }
  });

  it('drags a box, but only beyond a few pixels', () => {
    const { gestures } = play(
      PROMPT,
      input('down', 10, 10),
      input('move', 13, 12),
      input('move', 40, 30),
      input('up', 50, 40, { t: 5 }),
    );
    expect(gestures).toEqual([
      { type: 'box', phase: 'draw', from: [10, 10], to: [40, 30], t: 0 },
      { type: 'box', phase: 'end', from: [10, 10], to: [50, 40], t: 5 },
    ]);
  });

  it('drags no box with the right button: a shaky click stays a click', () => {
    const right = { button: 2 };
    const { gestures } = play(
      PROMPT,
      input('down', 10, 10, right),
      input('move', 30, 30, right),
      input('up', 30, 30, right),
    );
    expect(gestures).toEqual([{ type: 'click', x: 10, y: 10, label: 0, t: 0 }]);
  });

  it('gives up a box that came back to its start', () => {
    const { gestures } = play(
      PROMPT,
      input('down', 10, 10),
      input('move', 40, 40),
      input('up', 11, 40),
    );
    expect(gestures.at(-1)).toEqual({ type: 'box', phase: 'cancel' });
  });

  it('takes a mask in hand with Shift', () => {
    const { gestures } = play(PROMPT, input('down', 10, 10, { shift: true }), input('up', 10, 10));
    expect(gestures).toEqual([{ type: 'take', x: 10, y: 10 }]);
  });

  it('pans with the middle button, and with the left one while Space is down', () => {
    for (const [mode, button] of [
      [PROMPT, 1],
      [{ tool: 'brush', panning: true }, 0],
    ] as const) {
      const { gestures } = play(
        mode,
        input('down', 10, 10, { button }),
        input('move', 15, 7),
        input('up', 15, 7),
      );
      expect(gestures).toEqual([{ type: 'pan', dx: 5, dy: -3 }]);
    }
  });

  it('hovers while nothing is pressed', () => {
    expect(play(PROMPT, input('move', 3, 4), { kind: 'left' }).gestures).toEqual([
      { type: 'hover', x: 3, y: 4 },
      { type: 'leave' },
    ]);
  });

  it('paints with every place it was at, and with the other button the other way round', () => {
    const trail: [number, number][] = [
      [11, 10],
      [12, 11],
      [14, 13],
    ];
    const stroke = play(
      BRUSH,
      input('down', 10, 10),
      input('move', 14, 13, { trail }),
      input('up', 15, 14),
    );
    expect(stroke.gestures).toEqual([
      { type: 'stroke', phase: 'start', mode: 'brush', points: [[10, 10]] },
      { type: 'stroke', phase: 'draw', mode: 'brush', points: trail },
      { type: 'stroke', phase: 'end', mode: 'brush', points: [[15, 14]] },
    ]);
    for (const [mode, meant] of [
      [BRUSH, 'eraser'],
      [ERASER, 'brush'],
    ] as const)
      expect(play(mode, input('down', 1, 1, { button: 2 })).gestures[0]).toMatchObject({
        mode: meant,
      });
  });
});

describe('Escape and lost pointers', () => {
  it('end a box, and the pointer that is still down does nothing more', () => {
    const { gestures, state } = play(
      PROMPT,
      input('down', 10, 10),
      input('move', 40, 40),
      { kind: 'abort' },
      input('move', 80, 80),
      input('up', 80, 80),
    );
    expect(gestures.map((one) => ('phase' in one ? one.phase : one.type))).toEqual([
      'draw',
      'cancel',
    ]);
    expect(isBusy(state)).toBe(false);
  });

  it('end a stroke', () => {
    const { gestures } = play(BRUSH, input('down', 10, 10), input('cancel', 10, 10));
    expect(gestures.at(-1)).toEqual({ type: 'stroke', phase: 'cancel' });
  });
});

describe('fingers', () => {
  it('tap a foreground point', () => {
    const { gestures } = play(PROMPT, input('down', 5, 5, finger(1)), input('up', 8, 6, finger(1)));
    expect(gestures).toEqual([
      { type: 'arm', delay: 450 },
      { type: 'click', x: 5, y: 5, label: 1, t: 0 },
    ]);
  });

  it('press long for a background point, once', () => {
    const { gestures } = play(
      PROMPT,
      input('down', 5, 5, finger(1)),
      { kind: 'held' },
      input('up', 5, 5, finger(1)),
    );
    expect(gestures.slice(1)).toEqual([{ type: 'click', x: 5, y: 5, label: 0, t: 450 }]);
  });

  it('zoom and pan when there are two, and none of them clicks', () => {
    const { gestures } = play(
      PROMPT,
      input('down', 100, 100, finger(1)),
      input('down', 200, 100, finger(2)),
      input('move', 300, 100, finger(2)),
      input('up', 300, 100, finger(2)),
      input('move', 110, 100, finger(1)),
      input('up', 110, 100, finger(1)),
    );
    expect(gestures.slice(1)).toEqual([
      { type: 'pinch', factor: 2, x: 200, y: 100, dx: 50, dy: 0 },
      { type: 'pan', dx: 10, dy: 0 },
    ]);
  });

  it('take back the beginning of a stroke when a second one comes, but not a whole stroke', () => {
    const begun = play(BRUSH, input('down', 10, 10, finger(1)), input('down', 90, 90, finger(2)));
    expect(begun.gestures.at(-1)).toEqual({ type: 'stroke', phase: 'cancel' });
    const far = play(
      BRUSH,
      input('down', 10, 10, finger(1)),
      input('move', 60, 60, finger(1)),
      input('down', 90, 90, finger(2)),
      input('up', 70, 70, finger(1)),
    );
    expect(far.gestures.at(-1)).toMatchObject({ type: 'stroke', phase: 'end' });
  });
});

describe('a pen', () => {
  it('makes fingers only move the image: a palm draws nothing', () => {
    const { gestures } = play(
      PROMPT,
      input('down', 10, 10, pen),
      input('up', 10, 10, pen),
      input('down', 300, 300, finger(1)),
      input('move', 304, 300, finger(1)),
      input('up', 304, 300, finger(1)),
    );
    expect(gestures).toEqual([
      { type: 'click', x: 10, y: 10, label: 1, t: 0 },
      { type: 'pan', dx: 4, dy: 0 },
    ]);
  });

  it('that is down is not disturbed by fingers', () => {
    const { gestures } = play(
      BRUSH,
      input('down', 10, 10, pen),
      input('down', 300, 300, finger(1)),
      input('move', 340, 300, finger(1)),
      input('up', 20, 20, pen),
    );
    expect(gestures.map(({ type }) => type)).toEqual(['stroke', 'stroke']);
  });

  it('erases with its other end, whatever the tool', () => {
    expect(play(PROMPT, input('down', 10, 10, { ...pen, button: 5 })).gestures).toEqual([
      { type: 'stroke', phase: 'start', mode: 'eraser', points: [[10, 10]] },
    ]);
  });
});
