// What fingers, pens and mice mean: a pure state machine from pointer events to gestures. There are no
// modes to switch: a press is a point, a drag is a box, the right button takes away. Once a pen was
// seen, fingers only move the image, so that a resting palm draws nothing.
//
//   const [next, gestures] = recognise(IDLE, input, { tool: 'prompt', panning: false });

import type { At, Device, Gesture, Input, Mode, PointerInput } from './gesture';

export type { At, Device, Gesture, Input, Mode, PointerInput, Tool } from './gesture';

interface Finger {
  readonly id: number;
  readonly x: number;
  readonly y: number;
}

interface Press extends Finger {
  readonly device: Device;
  readonly t: number;
}

type Phase =
  | { readonly name: 'idle' }
  | ({ readonly name: 'pressed'; readonly label: 0 | 1; readonly take: boolean } & Press)
  | ({ readonly name: 'boxing' } & Press)
  | ({
      readonly name: 'stroking';
      readonly mode: 'brush' | 'eraser';
      readonly far: boolean;
    } & Press)
  | ({ readonly name: 'panning' } & Finger)
  | { readonly name: 'pinching'; readonly a: Finger; readonly b: Finger }
  /** Over, but the pointer is still down. */
  | { readonly name: 'spent'; readonly id: number };

export interface PointerState {
  readonly phase: Phase;
  readonly penSeen: boolean;
}

export const IDLE: PointerState = { phase: { name: 'idle' }, penSeen: false };

/** How far a press may wander and still be a click, by how steady the device is. */
const SLOP_PX: Record<Device, number> = { mouse: 4, pen: 6, touch: 10 };
const LONG_PRESS_MS = 450;
const SMALLEST_BOX_PX = 4;

type Recognised = readonly [state: PointerState, gestures: readonly Gesture[]];

export function recognise(state: PointerState, input: Input, mode: Mode): Recognised {
  switch (input.kind) {
    case 'down':
      return down(input.device === 'pen' ? { ...state, penSeen: true } : state, input, mode);
    case 'move':
      return move(state, input);
    case 'up':
      return up(state, input);
    case 'cancel':
      return isOf(state.phase, input.id) ? aborted(state, null) : [state, []];
    case 'held':
      return held(state);
    case 'abort':
      return aborted(state, idOf(state.phase));
    case 'left':
      return [state, state.phase.name === 'idle' ? [{ type: 'leave' }] : []];
  }
}

/** Whether a gesture is under way that Escape would end. */
export function isBusy(state: PointerState): boolean {
  return state.phase.name !== 'idle' && state.phase.name !== 'spent';
}

function down(state: PointerState, input: PointerInput, mode: Mode): Recognised {
  const { phase } = state;
  const finger = { id: input.id, x: input.x, y: input.y };
  if (phase.name !== 'idle') return secondFinger(state, input);
  if (mode.panning || input.button === 1 || (input.device === 'touch' && state.penSeen))
    return [{ ...state, phase: { name: 'panning', ...finger } }, []];
  const press = { ...finger, device: input.device, t: input.t };
  const erasing = input.device === 'pen' && input.button === 5; // the pen's other end
  if (mode.tool !== 'prompt' || erasing) {
    const takes = erasing || (mode.tool === 'eraser') !== (input.button === 2);
    const stroke = takes ? ('eraser' as const) : ('brush' as const);
    const start = { type: 'stroke', phase: 'start', mode: stroke, points: [[input.x, input.y]] };
    return [
      { ...state, phase: { name: 'stroking', mode: stroke, far: false, ...press } },
      [start as Gesture],
    ];
  }
  if (input.button !== 0 && input.button !== 2) return [state, []];
  const label = input.button === 2 || input.other ? 0 : 1;
  const pressed = { name: 'pressed' as const, label, take: input.shift, ...press } as const;
  const arm: Gesture[] =
    input.device === 'touch' && !input.shift ? [{ type: 'arm', delay: LONG_PRESS_MS }] : [];
  return [{ ...state, phase: pressed }, arm];
}

/** Two fingers move the image; what one of them had begun a moment ago was not meant. */
function secondFinger(state: PointerState, input: PointerInput): Recognised {
  const { phase } = state;
  const b = { id: input.id, x: input.x, y: input.y };
  if (input.device !== 'touch' || !('x' in phase)) return [state, []];
  const isTouch = phase.name === 'panning' || phase.device === 'touch';
  if (!isTouch || (phase.name === 'stroking' && phase.far)) return [state, []];
  const a = { id: phase.id, x: phase.x, y: phase.y };
  return [{ ...state, phase: { name: 'pinching', a, b } }, ending(phase)];
}

function move(state: PointerState, input: PointerInput): Recognised {
  const { phase } = state;
  if (phase.name === 'idle')
    return [state, input.device === 'touch' ? [] : [{ type: 'hover', x: input.x, y: input.y }]];
  if (!isOf(phase, input.id)) return [state, []];
  const to: At = [input.x, input.y];
  switch (phase.name) {
    case 'pressed': {
      const far = Math.hypot(input.x - phase.x, input.y - phase.y) > SLOP_PX[phase.device];
      // The right button is never a box: a shaky background click stays one.
      if (!far || phase.label === 0) return [state, []];
      const { id, x, y, device, t } = phase;
      return [
        { ...state, phase: { name: 'boxing', id, x, y, device, t } },
        [{ type: 'disarm' }, { type: 'box', phase: 'draw', from: [x, y], to, t: input.t }],
      ];
    }
    case 'boxing':
      return [state, [{ type: 'box', phase: 'draw', from: [phase.x, phase.y], to, t: input.t }]];
    case 'stroking': {
      const moved = Math.hypot(input.x - phase.x, input.y - phase.y) > SLOP_PX.touch;
      const next = moved && !phase.far ? { ...phase, far: true } : phase;
      const draw = { type: 'stroke', phase: 'draw', mode: phase.mode, points: input.trail };
      return [{ ...state, phase: next }, [draw as Gesture]];
    }
    case 'panning': {
      const pan = { type: 'pan' as const, dx: input.x - phase.x, dy: input.y - phase.y };
      return [{ ...state, phase: { ...phase, x: input.x, y: input.y } }, [pan]];
    }
    case 'pinching':
      return pinched(state, phase, input);
    case 'spent':
      return [state, []];
  }
}

function pinched(
  state: PointerState,
  phase: Extract<Phase, { name: 'pinching' }>,
  input: PointerInput,
): Recognised {
  const moved = { id: input.id, x: input.x, y: input.y };
  const next = phase.a.id === input.id ? { ...phase, a: moved } : { ...phase, b: moved };
  const [before, after] = [middle(phase.a, phase.b), middle(next.a, next.b)];
  const pinch: Gesture = {
    type: 'pinch',
    factor: apart(next.a, next.b) / apart(phase.a, phase.b),
    x: after[0],
    y: after[1],
    dx: after[0] - before[0],
    dy: after[1] - before[1],
  };
  return [{ ...state, phase: next }, [pinch]];
}

function up(state: PointerState, input: PointerInput): Recognised {
  const { phase } = state;
  if (!isOf(phase, input.id)) return [state, []];
  const rest = { ...state, phase: IDLE.phase };
  switch (phase.name) {
    case 'pressed': {
      const { x, y, label, take } = phase;
      const click: Gesture = take
        ? { type: 'take', x, y }
        : { type: 'click', x, y, label, t: input.t };
      return [rest, [{ type: 'disarm' }, click]];
    }
    case 'boxing': {
      const small = Math.min(Math.abs(input.x - phase.x), Math.abs(input.y - phase.y));
      if (small < SMALLEST_BOX_PX) return [rest, [{ type: 'box', phase: 'cancel' }]];
      const from: At = [phase.x, phase.y];
      return [rest, [{ type: 'box', phase: 'end', from, to: [input.x, input.y], t: input.t }]];
    }
    case 'stroking': {
      const end = { type: 'stroke', phase: 'end', mode: phase.mode, points: input.trail };
      return [rest, [end as Gesture]];
    }
    case 'pinching': {
      // One finger stays: it goes on moving the image, and never ends as a click.
      const left = phase.a.id === input.id ? phase.b : phase.a;
      return [{ ...state, phase: { name: 'panning', ...left } }, []];
    }
    default:
      return [rest, []];
  }
}

/** A long press of a finger takes away, as the right button does. */
function held(state: PointerState): Recognised {
  const { phase } = state;
  if (phase.name !== 'pressed') return [state, []];
  const { id, x, y } = phase;
  const t = phase.t + LONG_PRESS_MS;
  return [{ ...state, phase: { name: 'spent', id } }, [{ type: 'click', x, y, label: 0, t }]];
}

function aborted(state: PointerState, stillDown: number | null): Recognised {
  const phase: Phase = stillDown === null ? IDLE.phase : { name: 'spent', id: stillDown };
  return [{ ...state, phase }, ending(state.phase)];
}

function ending(phase: Phase): readonly Gesture[] {
  if (phase.name === 'pressed') return [{ type: 'disarm' }];
  if (phase.name === 'boxing') return [{ type: 'box', phase: 'cancel' }];
  if (phase.name === 'stroking') return [{ type: 'stroke', phase: 'cancel' }];
  return [];
}

function isOf(phase: Phase, id: number): boolean {
  if (phase.name === 'pinching') return phase.a.id === id || phase.b.id === id;
  return idOf(phase) === id;
}

function idOf(phase: Phase): number | null {
  if (phase.name === 'idle') return null;
  return phase.name === 'pinching' ? phase.a.id : phase.id;
}

function middle(a: Finger, b: Finger): At {
  return [(a.x + b.x) / 2, (a.y + b.y) / 2];
}

function apart(a: Finger, b: Finger): number {
  return Math.max(8, Math.hypot(a.x - b.x, a.y - b.y));
}
