// Points, boxes and strokes: whom they are for, and what is asked of the decoder. Left makes new masks;
// taking away with nothing in progress takes hold of the mask under the pointer.

import { takenAt } from './hit';
import { stepped } from './history';
import { select } from './keeping';
import { held, started } from './objects';
import { done, quiet } from './outcome';
import { composed, painted, seedOf, snapped, withPrompt } from './prompting';
import type { Prompt } from '../types';
import type { Action, Current, EditorState, Outcome } from './values';

export function point(state: EditorState, action: Extract<Action, { type: 'point' }>): Outcome {
  const [x, y] = [snapped(action.x, state.width), snapped(action.y, state.height)];
  const holdsNew = action.label === 1 && state.mode === 'annotate';
  const target = targetOf(state, x, y, holdsNew ? action.newId : null);
  if (!target) return quiet(state, nothingHere(state, action.label === 1));
  if (state.mode === 'review' && !state.doc.current && action.label === 1)
    return select(state, target.id);
  const prompt: Prompt = { kind: 'point', x, y, label: action.label };
  const next = asked(state, target, prompt, action.answer ?? null, action.decoder ?? null);
  const data = { x, y, label: action.label, ...(action.answer ? { previewed: true } : {}) };
  return done(next, 'click', target.id, data);
}

export function box(state: EditorState, action: Extract<Action, { type: 'box' }>): Outcome {
  const [x0, x1] = [action.x0, action.x1].sort((a, b) => a - b) as [number, number];
  const [y0, y1] = [action.y0, action.y1].sort((a, b) => a - b) as [number, number];
  const prompt: Prompt = {
    kind: 'box',
    x0: snapped(x0, state.width),
    y0: snapped(y0, state.height),
    x1: snapped(x1, state.width),
    y1: snapped(y1, state.height),
  };
  if (prompt.x1 - prompt.x0 < 1 || prompt.y1 - prompt.y0 < 1)
    return quiet(state, 'That box lies outside the image.');
  const target =
    state.doc.current ?? (state.mode === 'annotate' ? started(state, action.newId) : null);
  if (!target) return quiet(state, nothingHere(state, true));
  const { x0: left, y0: top, x1: right, y1: bottom } = prompt;
  const next = asked(state, target, prompt, null, null);
  return done(next, 'box', target.id, { x0: left, y0: top, x1: right, y1: bottom });
}

export function stroke(state: EditorState, action: Extract<Action, { type: 'stroke' }>): Outcome {
  const [x, y] = action.points[0] ?? [0, 0];
  const begins = action.mode === 'brush' && state.mode === 'annotate';
  const target = targetOf(state, x, y, begins ? action.newId : null);
  if (!target) return quiet(state, nothingHere(state, action.mode === 'brush'));
  const { mode, radius } = action;
  const prompt = { kind: 'stroke' as const, mode, radius, points: action.points.map(copied) };
  const mask = painted(target.mask, prompt);
  const changed: Current = {
    ...target,
    prompts: withPrompt(target.prompts, prompt),
    mask,
    predictedIou: null, // it was predicted for another mask
    changed: true,
  };
  const next = stepped(state, 'stroke', target.id, { ...state.doc, current: changed });
  return done(next, 'stroke', target.id, { mode, radius, points: action.points.length });
}

function copied(at: readonly [number, number]): [number, number] {
  return [at[0], at[1]];
}

/** The object that a prompt at (x, y) is for: the one in progress, a new one, or the mask there. */
function targetOf(state: EditorState, x: number, y: number, newId: string | null): Current | null {
  if (state.doc.current) return state.doc.current;
  if (newId !== null) return started(state, newId);
  const object = takenAt(state.doc.objects, x, y, null);
  return object ? held(object) : null;
}

function nothingHere(state: EditorState, adding: boolean): string {
  if (state.mode === 'review' && adding) return 'In a review masks are corrected, not added.';
  return 'There is no mask here to take away from. A left click starts one.';
}

/** The target with one prompt more and a question to the decoder (or its answer, known already). */
function asked(
  state: EditorState,
  target: Current,
  prompt: Prompt,
  answer: Current['answer'],
  decoder: Current['decoder'],
): EditorState {
  const prompts = withPrompt(target.prompts, prompt);
  const revision = state.revision + 1;
  const next: Current = answer
    ? {
        ...target,
        prompts,
        answer,
        chosen: answer.best,
        mask: composed(answer, answer.best, prompts),
        predictedIou: answer.candidates[answer.best]?.iou ?? null,
        decoder,
        pending: null,
        changed: true,
      }
    : {
        ...target,
        prompts,
        pending: { revision, objectId: target.id, prompts, seed: seedOf(target) },
        changed: true,
      };
  const kind = prompt.kind === 'box' ? 'box' : 'click';
  return stepped({ ...state, revision }, kind, target.id, { ...state.doc, current: next });
}

export function cycle(state: EditorState, candidate: number): Outcome {
  const { current } = state.doc;
  const chosen = current?.answer?.candidates[candidate];
  if (!current?.answer || !chosen) return quiet(state, current ? 'No other candidate here.' : null);
  if (candidate === current.chosen) return quiet(state);
  const next: Current = {
    ...current,
    chosen: candidate,
    mask: composed(current.answer, candidate, current.prompts),
    predictedIou: current.prompts.some(({ kind }) => kind === 'stroke') ? null : chosen.iou,
    changed: true,
  };
  const after = stepped(state, 'cycle', current.id, { ...state.doc, current: next });
  return done(after, 'cycle', current.id, { candidate });
}
