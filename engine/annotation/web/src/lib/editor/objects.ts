// From an object in progress to a committed one and back; the ordered list of objects.

import { equal, type Mask } from '../masks';
import type { Made } from '../types';
import { colourFor } from './colours';
import { noMask } from './prompting';
import type { Current, Doc, EditorObject, EditorState } from './values';

/** A new object in progress, still without prompts. */
export function started(state: EditorState, id: string): Current {
  return {
    id,
    prompts: [],
    mask: noMask(state.width, state.height),
    predictedIou: null,
    decoder: null,
    answer: null,
    chosen: 0,
    pending: null,
    changed: false,
  };
}

/** A committed object in hand, unchanged yet. */
export function held(object: EditorObject): Current {
  return {
    id: object.id,
    prompts: object.prompts,
    mask: object.mask,
    predictedIou: object.predictedIou,
    decoder: object.decoder,
    answer: null,
    chosen: 0,
    pending: object.pending,
    changed: false,
  };
}

/** Nothing in hand; not a step of history, for nothing was changed. */
export function released(state: EditorState): EditorState {
  return { ...state, doc: { ...state.doc, current: null } };
}

/** The committed form of the object in progress: its old place when it had one. */
export function committed(state: EditorState, current: Current): EditorObject {
  const before = state.doc.objects.find((object) => object.id === current.id);
  const prefilled = before?.prefilled ?? null;
  const proposal = before?.proposal ?? false;
  return {
    id: current.id,
    number: before?.number ?? nextNumber(state.doc),
    colour: before?.colour ?? colourFor(current.mask, state.doc.objects),
    proposal,
    made: madeOf(proposal, prefilled, current.mask),
    prefilled,
    mask: current.mask,
    predictedIou: current.predictedIou,
    prompts: current.prompts,
    decoder: current.decoder,
    accepted: proposal ? true : (before?.accepted ?? null), // a person saw it
    pending: current.pending,
  };
}

export function madeOf(proposal: boolean, prefilled: Mask | null, mask: Mask): Made {
  if (!proposal) return 'new';
  return prefilled && (prefilled === mask || equal(prefilled, mask)) ? 'kept' : 'corrected';
}

/** Put in, or in the place of the one with the same id; ordered by number. */
export function withObject(
  objects: readonly EditorObject[],
  added: EditorObject,
): readonly EditorObject[] {
  const at = objects.findIndex((object) => object.id === added.id);
  if (at >= 0) return objects.with(at, added);
  const after = objects.findLastIndex((object) => object.number < added.number);
  return objects.toSpliced(after + 1, 0, added);
}

export function withoutObject(
  objects: readonly EditorObject[],
  id: string,
): readonly EditorObject[] {
  return objects.filter((object) => object.id !== id);
}

/** Numbers are never given twice while their object, even deleted, is there. */
export function nextNumber(doc: Doc): number {
  const numbers = [...doc.objects, ...doc.deleted].map(({ number }) => number);
  return numbers.reduce((most, number) => Math.max(most, number), 0) + 1;
}

/**
 * The object after (or before) the one in hand, or the one that was in hand last. With the last one in
 * hand there is none; with nothing in hand it goes round.
 */
export function neighbour(state: EditorState, direction: 1 | -1): EditorObject | null {
  const { objects, deleted, current } = state.doc;
  const from = [...objects, ...deleted].find(({ id }) => id === (current?.id ?? state.lastHeld));
  const end = objects.at(direction === 1 ? 0 : -1) ?? null;
  if (!from) return end;
  const next =
    direction === 1
      ? objects.find(({ number }) => number > from.number)
      : objects.findLast(({ number }) => number < from.number);
  return next ?? (current ? null : end);
}

/** Proposals that nobody has confirmed, corrected or deleted yet. */
export function isToCheck(object: EditorObject): boolean {
  return object.proposal && object.made === 'kept' && object.accepted !== true;
}

/** Objects that the canvas draws as committed: all but the one in hand. */
export function shownObjects(doc: Doc): readonly EditorObject[] {
  const { current } = doc;
  return current ? withoutObject(doc.objects, current.id) : doc.objects;
}
