// What each shortcut does. Keys and buttons both come through here.

import { moveCrosshair, onImage, type Direction } from '../../lib/editor/crosshair';
import type { At } from '../../lib/editor/pointer';
import type { Command } from '../../lib/editor/shortcuts';
import { resizedBrush, toolDown, toolUp } from '../../lib/editor/tools';
import { fitted, fittedTo, zoomAt } from '../../lib/editor/viewport';
import type { Gestures } from './gestures.svelte';
import type { EditorSession } from './session.svelte';

/** What the commands need of the page around the canvas. */
export interface Surroundings {
  help(): void;
  skip(): void;
  list(): void;
  /** Move the focus to the next part of the page. */
  panes(): void;
}

export interface Press {
  readonly t: number;
  readonly shift: boolean;
  /** How often the key has repeated since it went down. */
  readonly repeats: number;
}

const ZOOM_STEP = 1.25;
const BRUSH_STEP = 1.15;
const OPACITY_STEP = 0.1;

/** Returns false when the key should keep its usual meaning (Tab past the last mask). */
export function perform(
  command: Command,
  press: Press,
  session: EditorSession,
  gestures: Gestures,
  around: Surroundings,
): boolean {
  switch (command) {
    case 'candidate-1':
    case 'candidate-2':
    case 'candidate-3':
    case 'candidate-4':
      session.dispatch({ type: 'cycle', candidate: Number(command.at(-1)) - 1 });
      return true;
    case 'commit':
    case 'undo':
    case 'redo':
      // In the middle of a drag: undo means the drag, and there is nothing to keep yet.
      if (gestures.busy) {
        if (command === 'undo') gestures.abort();
        return true;
      }
      session.stopPreview();
      session.dispatch({ type: command });
      return true;
    case 'clear':
      clear(session, gestures);
      return true;
    case 'delete':
      session.dispatch({ type: 'delete', id: session.doc.current?.id ?? session.hoveredId });
      return true;
    case 'next':
      return session.step(1);
    case 'previous':
      return session.step(-1);
    case 'take':
      session.take(here(session));
      return true;
    case 'brush':
    case 'eraser':
      if (session.mode !== 'readonly') session.tool = toolDown(session.tool, command, press.t);
      session.stopPreview();
      return true;
    case 'smaller':
    case 'larger': {
      const factor = command === 'larger' ? BRUSH_STEP : 1 / BRUSH_STEP;
      session.tool = resizedBrush(session.tool, factor);
      return true;
    }
    case 'exhaustive':
      session.dispatch({ type: 'exhaustive', value: !session.doc.exhaustive });
      return true;
    case 'submit':
      session.submit();
      return true;
    case 'skip':
      if (session.mode === 'annotate') around.skip();
      return true;
    case 'help':
      around.help();
      return true;
    case 'list':
      around.list();
      return true;
    case 'panes':
      around.panes();
      return true;
    default:
      return look(command, session, gestures) || byHand(command, press, session);
  }
}

/** The key came up again: what was held ends. */
export function release(
  command: Command,
  t: number,
  session: EditorSession,
  gestures: Gestures,
): void {
  if (command === 'brush' || command === 'eraser') session.tool = toolUp(session.tool, command, t);
  if (command === 'hide') session.setHidden(false);
  if (command === 'pan') gestures.panning = false;
}

function clear(session: EditorSession, gestures: Gestures): void {
  if (gestures.abort()) return;
  if (session.strokes.live || session.corner) {
    session.strokes.cancel();
    session.corner = null;
    session.liveBox = null;
  } else if (session.doc.current) session.dispatch({ type: 'clear' });
  else if (session.tool.tool !== 'prompt') session.tool = { ...session.tool, tool: 'prompt' };
}

function look(command: Command, session: EditorSession, gestures: Gestures): boolean {
  const { view, canvas } = session;
  const { image } = session.task;
  const zoomed = (factor: number): typeof view =>
    zoomAt(view, factor, ...(session.pointer ?? middle(session)), image, canvas);
  switch (command) {
    case 'hide':
      session.setHidden(true);
      return true;
    case 'outline':
      session.outlines = !session.outlines;
      return true;
    case 'fainter':
      session.opacity = Math.max(0.1, session.opacity - OPACITY_STEP);
      return true;
    case 'stronger':
      session.opacity = Math.min(0.9, session.opacity + OPACITY_STEP);
      return true;
    case 'preview':
      session.setPreview(!session.previewOn);
      return true;
    case 'pan':
      gestures.panning = true;
      return true;
    case 'zoom-in':
      session.view = zoomed(ZOOM_STEP);
      return true;
    case 'zoom-out':
      session.view = zoomed(1 / ZOOM_STEP);
      return true;
    case 'fit':
      session.view = fitted(image, canvas);
      return true;
    case 'actual-size':
      // One image pixel per device pixel: what photographers call 100 %.
      session.view = zoomed(1 / (view.scale * window.devicePixelRatio));
      return true;
    case 'zoom-object':
      zoomToObject(session);
      return true;
    default:
      return false;
  }
}

export function zoomToObject(session: EditorSession): void {
  const { current } = session.doc;
  const object = session.shown.find(({ id }) => id === session.hoveredId);
  const mask = current?.mask ?? object?.mask;
  if (!mask || mask.area === 0) return;
  const rect = { x0: mask.x0, y0: mask.y0, x1: mask.x0 + mask.w, y1: mask.y0 + mask.h };
  session.view = fittedTo(rect, session.task.image, session.canvas);
}

/** Everything that a mouse does, at the crosshair. */
function byHand(command: Command, press: Press, session: EditorSession): boolean {
  switch (command) {
    case 'left':
    case 'right':
    case 'up':
    case 'down':
      move(command, press, session);
      return true;
    case 'add-here':
      addHere(press, session);
      return true;
    case 'remove-here':
      session.click(here(session), 0, press.t);
      return true;
    case 'corner-here':
      cornerHere(press, session);
      return true;
    default:
      return false;
  }
}

function move(direction: Direction, press: Press, session: EditorSession): void {
  const { image } = session.task;
  const from = onImage(here(session), session.view, image);
  const moved = moveCrosshair(
    from,
    direction,
    press.shift,
    press.repeats,
    session.view,
    image,
    session.canvas,
  );
  session.view = moved.view;
  session.crosshair = moved.at;
  if (session.strokes.live) session.strokes.grow([moved.at]);
  else if (session.corner) session.liveBox = boxTo(session, session.corner, moved.at);
  else session.lookAt(moved.at);
}

function addHere(press: Press, session: EditorSession): void {
  const at = here(session);
  const { tool } = session.tool;
  if (tool === 'prompt') return session.click(at, 1, press.t);
  session.crosshair = at;
  if (session.strokes.live) session.strokes.end();
  else session.strokes.begin(tool, at);
}

function cornerHere(press: Press, session: EditorSession): void {
  const at = here(session);
  if (session.mode === 'readonly') return;
  if (!session.corner) {
    session.corner = session.imagePoint(at);
    session.crosshair = at;
    session.stopPreview();
    session.notice = 'First corner set: move to the other corner and press C again.';
    return;
  }
  const rect = boxTo(session, session.corner, at);
  session.corner = null;
  session.liveBox = null;
  session.box(rect, press.t);
}

/** A corner is kept in image pixels, so that panning does not move it. */
function boxTo(session: EditorSession, corner: At, at: At) {
  const [x1, y1] = session.imagePoint(at);
  return { x0: corner[0], y0: corner[1], x1, y1 };
}

function here(session: EditorSession): At {
  return session.crosshair ?? session.pointer ?? middle(session);
}

function middle({ canvas }: EditorSession): At {
  return [canvas.width / 2, canvas.height / 2];
}
