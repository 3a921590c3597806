// What an answer of the decoder changes: the document that asked, wherever it is by then (present, past
// or future), and the object in progress when it has gone on from there. Late answers change nothing.

import { everywhere } from './history';
import { colourFor } from './colours';
import { madeOf, withoutObject } from './objects';
import { composed, leadsTo } from './prompting';
import type { DecoderKind } from '../types';
import type {
  Action,
  Current,
  DecodeAnswer,
  DecodeRequest,
  Doc,
  EditorObject,
  EditorState,
  Outcome,
} from './values';

type Answered = Extract<Action, { type: 'answered' }>;

export function answered(state: EditorState, action: Answered): Outcome {
  const before = state.doc;
  const next = everywhere(state, (doc) => settledDoc(doc, action));
  const doc = next.doc === before ? interim(state, action) : next.doc;
  return { state: { ...next, doc }, events: [], notice: noticeOf(before, doc, action) };
}

function settledDoc(doc: Doc, action: Answered): Doc {
  const { revision } = action;
  const { current } = doc;
  const asked = doc.objects.find((object) => object.pending?.revision === revision);
  if (current?.pending?.revision !== revision && !asked) return doc;
  const objects = asked ? resolvedObjects(doc, asked, action) : doc.objects;
  return {
    ...doc,
    objects,
    current:
      current?.pending?.revision === revision
        ? { ...showing(current, action.answer, action.decoder), pending: null }
        : current,
  };
}

/** The answer to an earlier click of the object in progress: shown, and told to the next question. */
function interim(state: EditorState, action: Answered): Doc {
  const { current } = state.doc;
  const asked = requestIn(state, action.revision);
  const waiting = current?.pending;
  if (!current || !waiting || !asked || asked.objectId !== current.id) return state.doc;
  if (asked.revision > waiting.revision || !leadsTo(asked, waiting.prompts)) return state.doc;
  const shown = showing(current, action.answer, action.decoder);
  const logits = action.answer.candidates[shown.chosen]?.logits;
  const seed = logits ? { kind: 'logits' as const, logits } : waiting.seed;
  return { ...state.doc, current: { ...shown, pending: { ...waiting, seed } } };
}

function requestIn(state: EditorState, revision: number): DecodeRequest | null {
  for (const { doc } of [...state.past, ...state.future])
    if (doc.current?.pending?.revision === revision) return doc.current.pending;
  return null;
}

function showing(current: Current, answer: DecodeAnswer, decoder: DecoderKind): Current {
  const painted = current.prompts.some(({ kind }) => kind === 'stroke');
  return {
    ...current,
    answer,
    chosen: answer.best,
    mask: composed(answer, answer.best, current.prompts),
    predictedIou: painted ? null : (answer.candidates[answer.best]?.iou ?? null),
    decoder,
  };
}

/** An object that was committed before its answer came gets its mask; without one it goes. */
function resolvedObjects(doc: Doc, asked: EditorObject, action: Answered): readonly EditorObject[] {
  const { answer, decoder } = action;
  const mask = composed(answer, answer.best, asked.prompts);
  if (mask.area === 0) return withoutObject(doc.objects, asked.id);
  const others = withoutObject(doc.objects, asked.id);
  const resolved: EditorObject = {
    ...asked,
    mask,
    made: madeOf(asked.proposal, asked.prefilled, mask),
    colour: asked.mask.area > 0 ? asked.colour : colourFor(mask, others),
    predictedIou: answer.candidates[answer.best]?.iou ?? null,
    decoder,
    pending: null,
  };
  return doc.objects.map((object) => (object === asked ? resolved : object));
}

function noticeOf(before: Doc, after: Doc, action: Answered): string | null {
  if (after.objects.length < before.objects.length)
    return 'The model found nothing at your last clicks; the empty mask was left out.';
  const { current } = after;
  if (current && before.current?.pending?.revision === action.revision && current.mask.area === 0)
    return 'The model found nothing here: try a box or another point, or paint it (B).';
  return null;
}
