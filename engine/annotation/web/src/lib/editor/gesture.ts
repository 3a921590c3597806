// What comes in from pointers and what it means: the values of the recogniser in pointer.ts.

export type Tool = 'prompt' | 'brush' | 'eraser';
export type Device = 'mouse' | 'pen' | 'touch';
export type At = readonly [x: number, y: number];

/** A pointer event, in CSS pixels of the canvas and milliseconds. */
export interface PointerInput {
  readonly kind: 'down' | 'move' | 'up' | 'cancel';
  readonly id: number;
  readonly device: Device;
  readonly button: number;
  readonly x: number;
  readonly y: number;
  readonly t: number;
  /** Shift: take a mask in hand. Alt or Control: the background button of those who have one only. */
  readonly shift: boolean;
  readonly other: boolean;
  /** Where the pointer was since the last event, this place included. */
  readonly trail: readonly At[];
}

/** What else can happen: the long-press timer rang, Escape was hit, the pointer left the canvas. */
export type Input =
  PointerInput | { readonly kind: 'held' } | { readonly kind: 'abort' } | { readonly kind: 'left' };

export interface Mode {
  readonly tool: Tool;
  /** The pan key is down. */
  readonly panning: boolean;
}

export type Gesture =
  | { readonly type: 'hover'; readonly x: number; readonly y: number }
  | { readonly type: 'leave' }
  | {
      readonly type: 'click';
      readonly x: number;
      readonly y: number;
      readonly label: 0 | 1;
      /** When the pointer went up: latency counts from there. */
      readonly t: number;
    }
  | { readonly type: 'take'; readonly x: number; readonly y: number }
  | {
      readonly type: 'box';
      readonly phase: 'draw' | 'end';
      readonly from: At;
      readonly to: At;
      readonly t: number;
    }
  | { readonly type: 'box'; readonly phase: 'cancel' }
  | {
      readonly type: 'stroke';
      readonly phase: 'start' | 'draw' | 'end';
      readonly mode: 'brush' | 'eraser';
      readonly points: readonly At[];
    }
  | { readonly type: 'stroke'; readonly phase: 'cancel' }
  | { readonly type: 'pan'; readonly dx: number; readonly dy: number }
  | {
      readonly type: 'pinch';
      readonly factor: number;
      readonly x: number;
      readonly y: number;
      readonly dx: number;
      readonly dy: number;
    }
  /** Ring with 'held' after so many milliseconds, unless 'disarm' comes first. */
  | { readonly type: 'arm'; readonly delay: number }
  | { readonly type: 'disarm' };
