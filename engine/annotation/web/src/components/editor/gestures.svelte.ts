// From DOM events of the canvas to gestures, and from gestures to the session.

import type { Attachment } from 'svelte/attachments';
import {
  IDLE,
  isBusy,
  recognise,
  type At,
  type Gesture,
  type Input,
} from '../../lib/editor/pointer';
import type { Device, PointerInput, PointerState } from '../../lib/editor/pointer';
import { resizedBrush } from '../../lib/editor/tools';
import { panBy, zoomAt } from '../../lib/editor/viewport';
import { NO_WHEEL, recogniseWheel, type WheelState } from '../../lib/editor/wheel';
import type { EditorSession } from './session.svelte';

export class Gestures {
  /** The pan key is down. */
  panning = $state(false);
  dragging = $state(false);
  private pointers: PointerState = IDLE;
  private wheel: WheelState = NO_WHEEL;
  private timer: ReturnType<typeof setTimeout> | null = null;
  private origin: At = [0, 0];

  constructor(private readonly session: EditorSession) {}

  /** Listen on the canvas. */
  readonly attach: Attachment<HTMLElement> = (element) => {
    const listen = <K extends keyof HTMLElementEventMap>(
      kind: K,
      handle: (event: HTMLElementEventMap[K]) => void,
      options?: AddEventListenerOptions,
    ): (() => void) => {
      element.addEventListener(kind, handle, options);
      return () => element.removeEventListener(kind, handle, options);
    };
    const stops = [
      listen('pointerdown', (event) => {
        this.session.byKeyboard = false;
        element.focus({ preventScroll: true });
        // Lets go of the pointer only at its end, wherever it wanders.
        element.setPointerCapture(event.pointerId);
        event.preventDefault();
        this.feed(this.inputOf(event, 'down', element));
      }),
      listen('pointermove', (event) => this.feed(this.inputOf(event, 'move', element))),
      listen('pointerup', (event) => this.feed(this.inputOf(event, 'up', element))),
      listen('pointercancel', (event) => this.feed(this.inputOf(event, 'cancel', element))),
      listen('pointerleave', () => this.feed({ kind: 'left' })),
      listen('contextmenu', (event) => event.preventDefault()),
      listen('mousedown', (event) => event.preventDefault()), // no scrolling by the middle button
      listen('wheel', (event) => this.turn(event, element), { passive: false }),
    ];
    return () => {
      for (const stop of stops) stop();
      this.disarm();
    };
  };

  /** A press is under way that has not become a click, a box or a stroke yet. */
  get busy(): boolean {
    return isBusy(this.pointers);
  }

  /** End the gesture under way; false when there is none. */
  abort(): boolean {
    const busy = isBusy(this.pointers);
    this.feed({ kind: 'abort' });
    return busy;
  }

  private feed(input: Input): void {
    const mode = {
      tool: this.session.mode === 'readonly' ? ('prompt' as const) : this.session.tool.tool,
      panning: this.panning,
    };
    const [next, gestures] = recognise(this.pointers, input, mode);
    this.pointers = next;
    this.dragging = next.phase.name === 'panning' || next.phase.name === 'pinching';
    for (const gesture of gestures) this.perform(gesture);
    // The brush's ring follows a stroke too; a finger that is gone leaves none behind.
    if (input.kind === 'move' && this.session.tool.tool !== 'prompt')
      this.session.pointer = [input.x, input.y];
    if (input.kind === 'up' && input.device === 'touch') this.session.pointer = null;
  }

  private perform(gesture: Gesture): void {
    const { session } = this;
    switch (gesture.type) {
      case 'hover':
        return session.hover([gesture.x, gesture.y]);
      case 'leave':
        return session.hover(null);
      case 'click':
        session.crosshair = null;
        return session.click(
          [gesture.x, gesture.y],
          session.removing ? 0 : gesture.label,
          gesture.t,
        );
      case 'take':
        session.take([gesture.x, gesture.y]);
        return;
      case 'box':
        return this.box(gesture);
      case 'stroke':
        return this.stroke(gesture);
      case 'pan':
        return this.pan(gesture.dx, gesture.dy);
      case 'pinch':
        this.zoom(gesture.factor, gesture.x, gesture.y);
        return this.pan(gesture.dx, gesture.dy);
      case 'arm':
        this.timer = setTimeout(() => this.feed({ kind: 'held' }), gesture.delay);
        return;
      case 'disarm':
        return this.disarm();
    }
  }

  private box(gesture: Extract<Gesture, { type: 'box' }>): void {
    const { session } = this;
    if (gesture.phase === 'cancel' || session.mode === 'readonly') {
      session.liveBox = null;
      return;
    }
    session.stopPreview();
    const [x0, y0] = session.imagePoint(gesture.from);
    const [x1, y1] = session.imagePoint(gesture.to);
    const rect = { x0, y0, x1, y1 };
    session.liveBox = gesture.phase === 'draw' ? rect : null;
    if (gesture.phase === 'end') session.box(rect, gesture.t);
  }

  private stroke(gesture: Extract<Gesture, { type: 'stroke' }>): void {
    const { session } = this;
    if (gesture.phase === 'cancel') return session.strokes.cancel();
    if (gesture.phase === 'start') session.strokes.begin(gesture.mode, gesture.points[0]!);
    else session.strokes.grow(gesture.points);
    if (gesture.phase === 'end') session.strokes.end();
  }

  private pan(dx: number, dy: number): void {
    const { session } = this;
    session.view = panBy(session.view, dx, dy, session.task.image, session.canvas);
  }

  private zoom(factor: number, x: number, y: number): void {
    const { session } = this;
    session.view = zoomAt(session.view, factor, x, y, session.task.image, session.canvas);
  }

  private turn(event: WheelEvent, element: HTMLElement): void {
    event.preventDefault();
    const { session } = this;
    const [wheel, gesture] = recogniseWheel(this.wheel, {
      deltaX: event.deltaX,
      deltaY: event.deltaY,
      deltaMode: event.deltaMode,
      ctrl: event.ctrlKey || event.metaKey,
      shift: event.shiftKey,
      alt: event.altKey,
      t: event.timeStamp,
    });
    this.wheel = wheel;
    const box = element.getBoundingClientRect();
    const at: At = [event.clientX - box.left, event.clientY - box.top];
    if (gesture.type === 'brush') session.tool = resizedBrush(session.tool, gesture.factor);
    if (gesture.type === 'pan') this.pan(gesture.dx, gesture.dy);
    if (gesture.type === 'zoom') this.zoom(gesture.factor, ...at);
  }

  private inputOf(
    event: PointerEvent,
    kind: PointerInput['kind'],
    element: HTMLElement,
  ): PointerInput {
    // One look at the layout per press; the canvas does not move under a pointer.
    if (kind === 'down' || !isBusy(this.pointers)) {
      const box = element.getBoundingClientRect();
      this.origin = [box.left, box.top];
    }
    const place = (one: PointerEvent): At => [
      one.clientX - this.origin[0],
      one.clientY - this.origin[1],
    ];
    // Between two frames a pen reports many places; all of them make the stroke smooth.
    const between = kind === 'move' ? (event.getCoalescedEvents?.() ?? []) : [];
    const [x, y] = place(event);
    return {
      kind,
      id: event.pointerId,
      device: deviceOf(event),
      button:
        kind === 'down' && event.pointerType === 'pen' && event.buttons & 32 ? 5 : event.button,
      x,
      y,
      t: event.timeStamp,
      shift: event.shiftKey,
      other: event.altKey || event.ctrlKey || event.metaKey,
      trail: between.length > 0 ? between.map(place) : [[x, y]],
    };
  }

  private disarm(): void {
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = null;
  }
}

function deviceOf(event: PointerEvent): Device {
  return event.pointerType === 'pen' || event.pointerType === 'touch' ? event.pointerType : 'mouse';
}
