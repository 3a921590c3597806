// Committing, clearing, holding, deleting and restoring objects. What is in progress is never dropped
// by going on to something else; only Escape drops it.

import { takenAt } from './hit';
import { stepped } from './history';
import { committed, held, isToCheck, released, withObject, withoutObject } from './objects';
import { done, quiet } from './outcome';
import type { EditorState, Outcome } from './values';

export function commit(state: EditorState): Outcome {
  const { current } = state.doc;
  if (!current) return quiet(state);
  if (!current.changed) return confirmed(state, current.id);
  if (current.mask.area === 0 && !current.pending)
    return quiet(state, 'There is no mask to keep yet: click, drag a box or paint with the brush.');
  const object = committed(state, current);
  const doc = { ...state.doc, objects: withObject(state.doc.objects, object), current: null };
  const data = { area: object.mask.area, predicted_iou: object.predictedIou, made: object.made };
  return done(stepped(state, 'commit', object.id, doc), 'commit', object.id, data);
}

/** A proposal in hand that is right as it is. */
function confirmed(state: EditorState, id: string): Outcome {
  const object = state.doc.objects.find((one) => one.id === id);
  if (!object || !isToCheck(object) || state.mode !== 'annotate') return quiet(released(state));
  const objects = withObject(state.doc.objects, { ...object, accepted: true });
  const next = stepped(state, 'commit', id, { ...state.doc, objects, current: null });
  return done(next, 'commit', id, { area: object.mask.area, made: object.made, confirmed: true });
}

export function clear(state: EditorState): Outcome {
  const { current } = state.doc;
  if (!current) return quiet(state);
  if (!current.changed) return quiet(released(state));
  const next = stepped(state, 'clear', current.id, { ...state.doc, current: null });
  return done(next, 'clear', current.id, {});
}

export function take(state: EditorState, x: number, y: number): Outcome {
  const object = takenAt(state.doc.objects, x, y, state.doc.current?.id ?? null);
  if (!object) return quiet(state, 'There is no mask here.');
  return select(state, object.id);
}

/** Hold another object; what was in progress is kept, never dropped. */
export function select(state: EditorState, id: string | null): Outcome {
  if (id === (state.doc.current?.id ?? null)) return quiet(state);
  const before = settled(state);
  const object = id === null ? null : before.state.doc.objects.find((one) => one.id === id);
  if (!object) return { ...before, notice: null };
  const doc = { ...before.state.doc, current: held(object) };
  const event = { kind: 'select', object_id: object.id, data: {} };
  return { state: { ...before.state, doc }, events: [...before.events, event], notice: null };
}

/** Nothing in progress any more: committed where there is something to commit. */
function settled(state: EditorState): Outcome {
  const { current } = state.doc;
  if (!current) return quiet(state);
  if (!current.changed) return quiet(released(state)); // passing by confirms nothing
  return current.mask.area > 0 || current.pending ? commit(state) : clear(state);
}

export function remove(state: EditorState, id: string | null): Outcome {
  const target = id ?? state.doc.current?.id ?? null;
  const object = state.doc.objects.find((one) => one.id === target);
  if (!object)
    return target !== null && target === state.doc.current?.id ? clear(state) : quiet(state);
  const { current } = state.doc;
  const next = stepped(state, 'delete', object.id, {
    ...state.doc,
    objects: withoutObject(state.doc.objects, object.id),
    // One that never got its mask is not worth coming back to.
    deleted:
      object.mask.area > 0
        ? withObject(state.doc.deleted, { ...object, pending: null })
        : state.doc.deleted,
    current: current?.id === object.id ? null : current,
  });
  return done(next, 'delete', object.id, { proposal: object.proposal, area: object.mask.area });
}

export function restore(state: EditorState, id: string): Outcome {
  const object = state.doc.deleted.find((one) => one.id === id);
  if (!object) return quiet(state);
  const next = stepped(state, 'restore', id, {
    ...state.doc,
    objects: withObject(state.doc.objects, object),
    deleted: withoutObject(state.doc.deleted, id),
  });
  return done(next, 'restore', id, {});
}
