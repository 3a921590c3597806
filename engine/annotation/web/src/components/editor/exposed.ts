// `window.maskwheel`: what tests of the page read, while an editor is mounted.

import { toDraft } from '../../lib/editor/draft';
import { toScreen, type Viewport } from '../../lib/editor/viewport';
import type { EditorDraft } from '../../lib/types';
import type { EditorSession } from './session.svelte';

export interface Exposed {
  state(): EditorDraft & {
    pending: number;
    tool: string;
    hovered: string | null;
    made: Record<string, string>;
    candidates: number;
    preview: boolean;
  };
  /** From the pointer's release to the frame that shows its mask; NaN before the first. */
  lastClickMs(): number;
  viewport(): Viewport;
  /** Where an image point lies in the window, for clicking there. */
  toScreen(x: number, y: number): [number, number];
  setPreview(on: boolean): void;
  /** How long the last frames took to draw. */
  drawTimes(): number[];
}

declare global {
  interface Window {
    maskwheel?: Exposed;
  }
}

export function exposed(session: EditorSession): () => void {
  const own: Exposed = {
    state: () => ({
      ...toDraft(session.state),
      pending: session.pending,
      tool: session.tool.tool,
      hovered: session.hoveredId,
      made: Object.fromEntries(session.doc.objects.map(({ id, made }) => [id, made])),
      candidates: session.doc.current?.answer?.candidates.length ?? 0,
      preview: session.previewed !== null,
    }),
    lastClickMs: () => session.lastClickMs,
    viewport: () => ({ ...session.view }),
    toScreen: (x, y) => {
      const box = document.querySelector('[data-testid=canvas]')?.getBoundingClientRect();
      const [left, top] = toScreen(session.view, x, y);
      return [left + (box?.left ?? 0), top + (box?.top ?? 0)];
    },
    setPreview: (on) => session.setPreview(on),
    drawTimes: () => [...session.drawTimes],
  };
  window.maskwheel = own;
  return () => {
    if (window.maskwheel === own) delete window.maskwheel;
  };
}
