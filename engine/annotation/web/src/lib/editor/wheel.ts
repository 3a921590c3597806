// What a turn of the wheel means. A wheel zooms, two fingers on a trackpad pan, a pinch zooms (browsers
// report it with Control), Alt changes the brush. Browsers don't name the device: its steps tell, and a
// burst of events keeps the meaning of its first one.

export interface WheelInput {
  readonly deltaX: number;
  readonly deltaY: number;
  /** 0 pixels, 1 lines, 2 pages. */
  readonly deltaMode: number;
  readonly ctrl: boolean;
  readonly shift: boolean;
  readonly alt: boolean;
  readonly t: number;
}

export interface WheelState {
  readonly trackpad: boolean;
  readonly t: number;
}

export type WheelGesture =
  | { readonly type: 'zoom'; readonly factor: number }
  | { readonly type: 'pan'; readonly dx: number; readonly dy: number }
  | { readonly type: 'brush'; readonly factor: number };

export const NO_WHEEL: WheelState = { trackpad: false, t: -Infinity };

const BURST_MS = 250;
/** A notch of a wheel is at least this many pixels; trackpads begin with less. */
const NOTCH_PX = 50;
const LINE_PX = 33;
const PAGE_PX = 400;

export function recogniseWheel(
  state: WheelState,
  input: WheelInput,
): readonly [WheelState, WheelGesture] {
  const unit = input.deltaMode === 1 ? LINE_PX : input.deltaMode === 2 ? PAGE_PX : 1;
  const [dx, dy] = [input.deltaX * unit, input.deltaY * unit];
  const looksLikePad = input.deltaMode === 0 && (dx !== 0 || Math.abs(dy) < NOTCH_PX);
  const trackpad = input.t - state.t < BURST_MS ? state.trackpad : looksLikePad;
  const next = { trackpad, t: input.t };
  // With Alt or Shift some systems turn the wheel sideways.
  const turn = dy !== 0 ? dy : dx;
  if (input.alt) return [next, { type: 'brush', factor: Math.exp(-clamped(turn, 100) / 500) }];
  if (input.ctrl) return [next, { type: 'zoom', factor: Math.exp(-clamped(turn, 60) / 100) }];
  if (input.shift) return [next, { type: 'pan', dx: -turn, dy: 0 }];
  if (trackpad) return [next, { type: 'pan', dx: -dx, dy: -dy }];
  return [next, { type: 'zoom', factor: Math.exp(-clamped(turn, 240) / 500) }];
}

function clamped(value: number, most: number): number {
  return Math.min(Math.max(value, -most), most);
}
