// Undo and redo: one line of steps, in the order in which things were done. What does not change the
// result (selecting, looking, zooming) is not in it.

import type { Current, Doc, EditorState, Step, StepKind } from './values';

const MOST_STEPS = 200;
/** Steps this far back keep masks but no logits (each answer has megabytes of them). */
const WITH_LOGITS = 24;

/** Go on to `doc`; the present one can be come back to. */
export function stepped(
  state: EditorState,
  kind: StepKind,
  objectId: string | null,
  doc: Doc,
): EditorState {
  const last = state.past.at(-1);
  // Trying one candidate after the other is one step.
  const same = kind === 'cycle' && last?.kind === 'cycle' && last.objectId === objectId;
  const past = same ? state.past : lightened([...state.past, { kind, objectId, doc: state.doc }]);
  return { ...state, doc, past, future: [] };
}

export function undone(state: EditorState): { state: EditorState; step: Step } | null {
  const step = state.past.at(-1);
  if (!step) return null;
  const future = [...state.future, { ...step, doc: state.doc }];
  return { state: { ...state, doc: step.doc, past: state.past.slice(0, -1), future }, step };
}

export function redone(state: EditorState): { state: EditorState; step: Step } | null {
  const step = state.future.at(-1);
  if (!step) return null;
  const past = [...state.past, { ...step, doc: state.doc }];
  return { state: { ...state, doc: step.doc, past, future: state.future.slice(0, -1) }, step };
}

/** Change every document of the state, those in the past and the future too. */
export function everywhere(state: EditorState, change: (doc: Doc) => Doc): EditorState {
  const through = (steps: readonly Step[]): readonly Step[] => {
    const changed = steps.map((step) => {
      const doc = change(step.doc);
      return doc === step.doc ? step : { ...step, doc };
    });
    return changed.some((step, i) => step !== steps[i]) ? changed : steps;
  };
  return {
    ...state,
    doc: change(state.doc),
    past: through(state.past),
    future: through(state.future),
  };
}

function lightened(past: readonly Step[]): readonly Step[] {
  const steps = past.slice(-MOST_STEPS);
  const at = steps.length - WITH_LOGITS - 1;
  const old = steps[at];
  if (!old?.doc.current?.answer) return steps;
  const changed = { ...old, doc: { ...old.doc, current: withoutLogits(old.doc.current) } };
  return steps.with(at, changed);
}

function withoutLogits(current: Current): Current {
  if (!current.answer) return current;
  const candidates = current.answer.candidates.map((one) => ({ ...one, logits: null }));
  return { ...current, answer: { ...current.answer, candidates } };
}
