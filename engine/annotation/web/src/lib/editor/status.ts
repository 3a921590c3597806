// What the status line says: the newest notice first, then what the decoder does, then what to do next.

import type { DecodingStatus } from './decoding';
import type { Doc, EditorMode } from './values';
import type { Tool } from './pointer';

export interface Said {
  readonly text: string;
  readonly tone: 'calm' | 'busy' | 'bad';
}

/** What most clicks are made with: fingers have no right button and no keys. */
export type Hand = 'mouse' | 'finger';

export function said(
  notice: string | null,
  decoding: DecodingStatus,
  doc: Doc,
  mode: EditorMode,
  tool: Tool,
  hand: Hand = 'mouse',
): Said {
  if (decoding.phase === 'failed') {
    const wait = Math.max(1, Math.round(decoding.retryInMs / 1000));
    const text =
      `The model does not answer (${decoding.reason}). Your clicks are kept and asked again in ` +
      `${wait} s; brush and eraser work meanwhile.`;
    return { text, tone: 'bad' };
  }
  if (notice !== null) return { text: notice, tone: 'calm' };
  if (decoding.phase === 'asking' && decoding.slow)
    return { text: 'Waiting for the model…', tone: 'busy' };
  if (mode === 'readonly') return { text: 'Only to look at.', tone: 'calm' };
  if (decoding.phase === 'none' || decoding.phase === 'preparing')
    return {
      text: 'The model is getting ready for this image; you can click or paint already.',
      tone: 'busy',
    };
  return { text: hintFor(doc, mode, tool, hand), tone: 'calm' };
}

function hintFor(doc: Doc, mode: EditorMode, tool: Tool, hand: Hand): string {
  const finger = hand === 'finger';
  if (tool !== 'prompt') return paintingHint(tool, finger);
  const { current } = doc;
  const clicks = finger
    ? 'A tap adds, a long press takes away.'
    : 'Left click adds, right click takes away.';
  if (current?.changed) return finger ? clicks : `${clicks} Enter keeps it, Esc drops it.`;
  if (current) {
    if (finger) return clicks;
    const enter = mode === 'annotate' ? ' Enter: it is right.' : '';
    return `${clicks}${enter} Del deletes it, Esc lets go.`;
  }
  if (mode === 'review')
    return finger
      ? 'Tap a mask to take it in hand; a long press takes away from it.'
      : 'Click a mask to take it in hand; right click takes away from it.';
  if (doc.objects.length === 0)
    return finger
      ? 'Tap an object, or draw a box around it.'
      : 'Click an object, or drag a box around it.';
  return finger
    ? 'Tap or draw a box for the next one. A long press corrects a mask.'
    : 'Click or drag a box for the next one. Right click corrects a mask, Shift+click takes it.';
}

function paintingHint(tool: 'brush' | 'eraser', finger: boolean): string {
  const [adds, key] = tool === 'brush' ? [true, 'B'] : [false, 'E'];
  const does = adds ? 'Paint to add' : 'Paint to take away';
  if (finger) return `${does}. Its button again puts it away.`;
  return `${does}; the right button ${adds ? 'erases' : 'adds'}. ${key} again puts it away.`;
}
