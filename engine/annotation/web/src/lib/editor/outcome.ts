// The three ways in which an action ends: done and logged, refused with a sentence, or nothing.

import type { EditorState, Outcome } from './values';

export function quiet(state: EditorState, notice: string | null = null): Outcome {
  return { state, events: [], notice };
}

export function done(
  state: EditorState,
  kind: string,
  objectId: string | null,
  data: Record<string, unknown>,
): Outcome {
  return { state, events: [{ kind, object_id: objectId, data }], notice: null };
}
