// What the editor's tests share: squares as masks, answers made of them, and a state to begin with.

import { maskOfBits, toRle, type Mask } from '../../src/lib/masks';
import { apply, initialState, pendingRequests } from '../../src/lib/editor/state';
import type { Action, DecodeAnswer, EditorMode, EditorState } from '../../src/lib/editor/values';
import type { Obj, Task } from '../../src/lib/types';

export const WIDTH = 100;
export const HEIGHT = 80;

export function square(x0: number, y0: number, side: number): Mask {
  return maskOfBits(WIDTH, HEIGHT, x0, y0, side, side, new Uint8Array(side * side).fill(1));
}

/** An answer whose candidates are squares of these sides at (x, y); their logits are numbered. */
export function answerOf(x: number, y: number, ...sides: number[]): DecodeAnswer {
  const candidates = sides.map((side, at) => ({
    mask: square(x, y, side),
    iou: 0.9 - 0.1 * at,
    logits: new Float32Array([side]),
  }));
  return { candidates, best: 0 };
}

export function emptyAnswer(): DecodeAnswer {
  const mask = maskOfBits(WIDTH, HEIGHT, 0, 0, 0, 0, new Uint8Array(0));
  return { candidates: [{ mask, iou: 0.1, logits: new Float32Array([0]) }], best: 0 };
}

export function begin(mode: EditorMode = 'annotate'): EditorState {
  return initialState({ width: WIDTH, height: HEIGHT, mode });
}

/** The state after all actions. */
export function after(state: EditorState, ...actions: Action[]): EditorState {
  return actions.reduce((now, action) => apply(now, action).state, state);
}

export function point(x: number, y: number, label: 0 | 1 = 1, newId = 'a'): Action {
  return { type: 'point', x, y, label, newId };
}

export function stroke(
  mode: 'brush' | 'eraser',
  points: [number, number][],
  radius = 3,
  newId = 'a',
): Action {
  return { type: 'stroke', mode, radius, points, newId };
}

/** The answer to the newest open question. */
export function answered(state: EditorState, answer: DecodeAnswer): EditorState {
  const request = pendingRequests(state.doc)[0];
  if (!request) throw new Error('nothing was asked');
  return after(state, { type: 'answered', revision: request.revision, answer, decoder: 'browser' });
}

/** A state with one committed square per place. */
export function withSquares(...places: [x: number, y: number, side: number][]): EditorState {
  return places.reduce((state, [x, y, side], at) => {
    const asked = after(state, point(x + 1, y + 1, 1, `square-${at + 1}`));
    return after(answered(asked, answerOf(x, y, side)), { type: 'commit' });
  }, begin());
}

export function obj(id: string, mask: Mask, proposal = true): Obj {
  return {
    id,
    proposal,
    rle: toRle(mask),
    predicted_iou: 0.8,
    prompts: [],
    decoder: 'server',
    accepted: null,
  };
}

export function taskOf(...proposals: Obj[]): Task {
  return {
    id: 'task',
    campaign: { id: 'c', name: 'c', stage: 'semi', instructions: '', model: 'm', model_id: 'm' },
    image: { id: '1', width: WIDTH, height: HEIGHT, pixels: '', preview: '', embedding: '' },
    proposals,
    draft: null,
    returned: null,
    decoder: '',
  };
}
