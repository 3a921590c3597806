// The scene that a session's state makes: what lies over the committed masks.

import type { Scene } from '../../lib/editor/scene';
import type { EditorSession } from './session.svelte';

const NO_PROMPTS: Scene['prompts'] = [];

export function sceneOf(session: EditorSession): Scene {
  const { current } = session.doc;
  return {
    view: session.view,
    mask: current?.mask ?? null,
    prompts: current?.prompts ?? NO_PROMPTS,
    waiting: Boolean(current?.pending),
    hovered: hoveredOf(session),
    preview: current ? null : previewOf(session),
    stroke: session.strokes.live,
    box: session.liveBox,
    brush: brushOf(session),
    crosshair: session.crosshair,
    hidden: session.hidden,
    outlines: session.outlines,
    opacity: session.opacity,
  };
}

function hoveredOf({ doc, painted, hoveredId, hoveredInList }: EditorSession): Scene['hovered'] {
  // With a mask in progress the ones around it keep still.
  if (doc.current && !hoveredInList) return null;
  const object = painted.find(({ id }) => id === hoveredId);
  return object ? { mask: object.mask, rgb: object.rgb, strong: hoveredInList } : null;
}

function previewOf({ previewed }: EditorSession): Scene['preview'] {
  return previewed?.answer.candidates[previewed.answer.best]?.mask ?? null;
}

function brushOf(session: EditorSession): Scene['brush'] {
  const { tool, radius } = session.tool;
  const at = session.crosshair ?? session.pointer;
  if (tool === 'prompt' || !at || session.mode === 'readonly') return null;
  return { x: at[0], y: at[1], radius, mode: session.strokes.live?.mode ?? tool };
}
