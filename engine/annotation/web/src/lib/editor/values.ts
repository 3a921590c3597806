// The values of the editor: what is on the canvas, what can be undone, what is asked of the decoder.
// All of them are immutable; state.ts makes new ones.

import type { Mask } from '../masks';
import type { DecoderKind, EditorEvent, Made, Prompt } from '../types';

/** One of the decoder's answers to the same prompts. `logits` is null once history let go of it. */
export interface Candidate {
  readonly mask: Mask;
  readonly iou: number;
  readonly logits: Float32Array | null;
}

export interface DecodeAnswer {
  readonly candidates: readonly Candidate[];
  /** Index of the candidate that is shown first. */
  readonly best: number;
}

/** What the decoder is told about the mask before the newest prompt. */
export type Seed =
  | { readonly kind: 'logits'; readonly logits: Float32Array }
  | { readonly kind: 'mask'; readonly mask: Mask };

/** A question to the decoder that has no answer yet. */
export interface DecodeRequest {
  /** Counts up over all requests: names this one for ever. */
  readonly revision: number;
  readonly objectId: string;
  /** The object's prompts when it was asked; later strokes are laid over the answer. */
  readonly prompts: readonly Prompt[];
  readonly seed: Seed | null;
}

/** A committed mask. */
export interface EditorObject {
  readonly id: string;
  /** What people read in the list; never changes. Objects are kept in its order. */
  readonly number: number;
  /** Index into the palette; differs from its neighbours'. */
  readonly colour: number;
  readonly proposal: boolean;
  readonly made: Made;
  /** What the model had pre-filled. */
  readonly prefilled: Mask | null;
  readonly mask: Mask;
  readonly predictedIou: number | null;
  readonly prompts: readonly Prompt[];
  readonly decoder: DecoderKind | null;
  /** Of a proposal: it is shown as done, or a person confirmed it. */
  readonly accepted: boolean | null;
  /** Committed before the decoder had answered. */
  readonly pending: DecodeRequest | null;
}

/** The object in progress: a new one, or the correction of a committed one (same id). */
export interface Current {
  readonly id: string;
  readonly prompts: readonly Prompt[];
  /** What is shown; empty until the first answer. */
  readonly mask: Mask;
  readonly predictedIou: number | null;
  readonly decoder: DecoderKind | null;
  readonly answer: DecodeAnswer | null;
  /** Which candidate of the answer is shown. */
  readonly chosen: number;
  readonly pending: DecodeRequest | null;
  /** False while a committed object is only held, not changed. */
  readonly changed: boolean;
}

/** Everything that undo goes back over. */
export interface Doc {
  readonly objects: readonly EditorObject[];
  readonly deleted: readonly EditorObject[];
  readonly current: Current | null;
  readonly exhaustive: boolean;
}

export type StepKind =
  'click' | 'box' | 'stroke' | 'cycle' | 'commit' | 'clear' | 'delete' | 'restore' | 'exhaustive';

/** One thing that was done: its kind, what it was done to, and the document on its other side. */
export interface Step {
  readonly kind: StepKind;
  readonly objectId: string | null;
  readonly doc: Doc;
}

/** annotate: everything; review: no new objects; readonly: look only. */
export type EditorMode = 'annotate' | 'review' | 'readonly';

export interface EditorState {
  readonly width: number;
  readonly height: number;
  readonly mode: EditorMode;
  readonly doc: Doc;
  readonly past: readonly Step[];
  readonly future: readonly Step[];
  /** The last revision that was given to a request. */
  readonly revision: number;
  /** The committed object that was in hand last: going on with Tab starts there. */
  readonly lastHeld: string | null;
}

export type Action =
  | {
      readonly type: 'point';
      readonly x: number;
      readonly y: number;
      readonly label: 0 | 1;
      readonly newId: string;
      /** The hover preview's answer to this very point. */
      readonly answer?: DecodeAnswer;
      readonly decoder?: DecoderKind;
    }
  | {
      readonly type: 'box';
      readonly x0: number;
      readonly y0: number;
      readonly x1: number;
      readonly y1: number;
      readonly newId: string;
    }
  | {
      readonly type: 'stroke';
      readonly mode: 'brush' | 'eraser';
      readonly radius: number;
      readonly points: readonly (readonly [number, number])[];
      readonly newId: string;
    }
  | { readonly type: 'cycle'; readonly candidate: number }
  | { readonly type: 'commit' }
  | { readonly type: 'clear' }
  | { readonly type: 'select'; readonly id: string | null }
  | { readonly type: 'take'; readonly x: number; readonly y: number }
  | { readonly type: 'delete'; readonly id: string | null }
  | { readonly type: 'restore'; readonly id: string }
  | { readonly type: 'exhaustive'; readonly value: boolean }
  | { readonly type: 'undo' }
  | { readonly type: 'redo' }
  | {
      readonly type: 'answered';
      readonly revision: number;
      readonly answer: DecodeAnswer;
      readonly decoder: DecoderKind;
    };

/** What an action led to: the new state, lines for the log, and a sentence for the status line. */
export interface Outcome {
  readonly state: EditorState;
  readonly events: readonly EditorEvent[];
  readonly notice: string | null;
}
