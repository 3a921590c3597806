// The editor as a pure state machine: apply(state, action) gives the next state, lines for the event
// log and, where something could not be done, a sentence that says why. No DOM, no clock, no decoder.
//
//   let { state } = apply(initialState({ width, height, objects }), { type: 'point', x, y, label: 1, newId });
//   for (const request of pendingRequests(state.doc)) ...   // ask the decoder, then apply 'answered'

import { answered } from './answers';
import { box, cycle, point, stroke } from './asking';
import { redone, stepped, undone } from './history';
import { clear, commit, remove, restore, select, take } from './keeping';
import { done, quiet } from './outcome';
import type {
  Action,
  Current,
  DecodeRequest,
  Doc,
  EditorMode,
  EditorObject,
  EditorState,
  Outcome,
  Step,
} from './values';

export interface Beginning {
  readonly width: number;
  readonly height: number;
  readonly mode?: EditorMode;
  readonly objects?: readonly EditorObject[];
  readonly deleted?: readonly EditorObject[];
  readonly current?: Current | null;
  readonly exhaustive?: boolean;
  readonly revision?: number;
}

export function initialState(beginning: Beginning): EditorState {
  const { objects = [], deleted = [], current = null, exhaustive = false } = beginning;
  return {
    width: beginning.width,
    height: beginning.height,
    mode: beginning.mode ?? 'annotate',
    doc: { objects, deleted, current, exhaustive },
    past: [],
    future: [],
    revision: beginning.revision ?? 0,
    lastHeld: null,
  };
}

/** Questions that still want an answer: the object in progress first, somebody waits for it. */
export function pendingRequests(doc: Doc): readonly DecodeRequest[] {
  const requests: DecodeRequest[] = [];
  if (doc.current?.pending) requests.push(doc.current.pending);
  for (const object of doc.objects) if (object.pending) requests.push(object.pending);
  return requests;
}

const LOOKING: ReadonlySet<Action['type']> = new Set(['select', 'take', 'clear', 'answered']);

export function apply(state: EditorState, action: Action): Outcome {
  const outcome = applied(state, action);
  const { current, objects } = outcome.state.doc;
  if (!current || outcome.state.doc === state.doc) return outcome;
  const lastHeld = objects.some(({ id }) => id === current.id) ? current.id : null;
  return { ...outcome, state: { ...outcome.state, lastHeld } };
}

function applied(state: EditorState, action: Action): Outcome {
  if (state.mode === 'readonly' && !LOOKING.has(action.type)) return quiet(state);
  switch (action.type) {
    case 'point':
      return point(state, action);
    case 'box':
      return box(state, action);
    case 'stroke':
      return stroke(state, action);
    case 'cycle':
      return cycle(state, action.candidate);
    case 'commit':
      return commit(state);
    case 'clear':
      return clear(state);
    case 'take':
      return take(state, action.x, action.y);
    case 'select':
      return select(state, action.id);
    case 'delete':
      return remove(state, action.id);
    case 'restore':
      return restore(state, action.id);
    case 'exhaustive':
      return setExhaustive(state, action.value);
    case 'undo':
      return travel(state, undone(state), 'undo');
    case 'redo':
      return travel(state, redone(state), 'redo');
    case 'answered':
      return answered(state, action);
  }
}

function setExhaustive(state: EditorState, value: boolean): Outcome {
  if (state.doc.exhaustive === value) return quiet(state);
  const next = stepped(state, 'exhaustive', null, { ...state.doc, exhaustive: value });
  return done(next, 'exhaustive', null, { value });
}

const NAMES: Record<Step['kind'], string> = {
  click: 'the click',
  box: 'the box',
  stroke: 'the stroke',
  cycle: 'the choice of the mask',
  commit: 'the commit',
  clear: 'the clearing',
  delete: 'the deletion',
  restore: 'the restoring',
  exhaustive: 'the mark "nothing left"',
};

function travel(
  state: EditorState,
  move: { state: EditorState; step: Step } | null,
  kind: 'undo' | 'redo',
): Outcome {
  if (!move) return quiet(state, kind === 'undo' ? 'Nothing to undo.' : 'Nothing to redo.');
  const { step } = move;
  const event = { kind, object_id: step.objectId, data: { step: step.kind } };
  const number = numberOf(state.doc, step.objectId) ?? numberOf(move.state.doc, step.objectId);
  const whose = number === null ? '' : ` of mask ${number}`;
  const notice = `${kind === 'undo' ? 'Took back' : 'Did again'}: ${NAMES[step.kind]}${whose}.`;
  return { state: move.state, events: [event], notice };
}

function numberOf(doc: Doc, id: string | null): number | null {
  const object = [...doc.objects, ...doc.deleted].find((one) => one.id === id);
  return object?.number ?? null;
}
