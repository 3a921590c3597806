// One visit to one task: the editor's state and everything around it that the components show. The rules
// are in lib/editor; this holds them together with the decoder, the preview and the clock.

import type { Decoder } from '../../lib/decoder';
import { Decoding, type DecodingStatus } from '../../lib/editor/decoding';
import { openTask, toDraft } from '../../lib/editor/draft';
import { DraftSaver } from '../../lib/editor/draft_saver';
import { takenAt } from '../../lib/editor/hit';
import { rgbOf } from '../../lib/editor/colours';
import { isToCheck, neighbour, shownObjects } from '../../lib/editor/objects';
import type { At } from '../../lib/editor/pointer';
import { HoverPreview, type Previewed } from '../../lib/editor/preview';
import { snapped } from '../../lib/editor/prompting';
import type { Scene } from '../../lib/editor/scene';
import { apply, pendingRequests } from '../../lib/editor/state';
import { FIRST_TOOL } from '../../lib/editor/tools';
import type { Action, EditorMode, EditorState } from '../../lib/editor/values';
import { fitted, toImage, type Extent, type Rect, type Viewport } from '../../lib/editor/viewport';
import type { Painted } from '../../lib/editor/tiles';
import { newId } from '../../lib/sync/clock';
import { sceneOf } from './scene_of';
import { Strokes } from './strokes.svelte';
import type { EditorDraft, EditorEvent, EditorProps, Task, Tint } from '../../lib/types';

export type Callbacks = Pick<
  EditorProps<Decoder | null>,
  'onchange' | 'onevent' | 'onsubmit' | 'onskip' | 'onselect'
>;

export class EditorSession {
  state: EditorState = $state.raw(undefined as never);
  view: Viewport = $state.raw({ scale: 1, x: 0, y: 0 });
  canvas: Extent = $state.raw({ width: 1, height: 1 });
  tool = $state.raw(FIRST_TOOL);
  /** Taps take away: for fingers, which have no right button. */
  removing = $state(false);
  hoveredId: string | null = $state(null);
  hoveredInList = $state(false);
  /** The last thing used was a key: the canvas shows that it has the focus. */
  byKeyboard = $state(false);
  pointer: At | null = $state.raw(null);
  crosshair: At | null = $state.raw(null);
  liveBox: Rect | null = $state.raw(null);
  corner: At | null = $state.raw(null);
  previewed: Previewed | null = $state.raw(null);
  hidden = $state(false);
  /** How objects are marked from outside, in a review. */
  tint: Record<string, Tint> = $state.raw({});
  outlines = $state(false);
  opacity = $state(0.4);
  previewOn = $state(true);
  notice: string | null = $state(null);
  decoding: DecodingStatus = $state.raw({ phase: 'none' });
  submitting = $state(false);
  lastClickMs = $state(Number.NaN);

  readonly doc = $derived(this.state.doc);
  readonly shown = $derived(shownObjects(this.doc));
  readonly painted: readonly Painted[] = $derived(
    this.shown.map((object) => ({
      id: object.id,
      mask: object.mask,
      rgb: rgbOf(object.colour, this.tint[object.id]),
      faint: isToCheck(object) && this.mode === 'annotate',
    })),
  );
  readonly toCheck = $derived(this.doc.objects.filter(isToCheck).length);
  readonly pending = $derived(new Set(pendingRequests(this.doc).map((one) => one.revision)).size);
  readonly scene: Scene = $derived(sceneOf(this));

  readonly strokes = new Strokes(this);
  readonly task: Task;
  readonly mode: EditorMode;
  /** Set by the canvas: calls back when what was set until now is on screen. */
  whenShown: (callback: () => void) => void = (callback) => callback();
  /** Set by the canvas: how long its last frames took. */
  drawTimes: readonly number[] = [];
  private decoder: Decoder | null = null;
  private readonly asker: Decoding;
  private readonly preview: HoverPreview;
  private readonly clicks = new Map<number, number>();
  private readonly saver = new DraftSaver(() => this.callbacks().onchange?.(toDraft(this.state)));
  private laidOut = false;

  constructor(
    task: Task,
    draft: EditorDraft | null,
    mode: EditorMode,
    private readonly callbacks: () => Callbacks,
  ) {
    this.task = task;
    this.mode = mode;
    this.state = openTask(task, draft, mode);
    this.asker = new Decoding(task, {
      requests: () => pendingRequests(this.state.doc),
      answered: (revision, answer, decoder) => {
        this.preview.clickTook(answer.milliseconds);
        this.dispatch({ type: 'answered', revision, answer, decoder });
        this.measure(revision);
      },
      failed: (reason) => this.log('decode-failed', this.doc.current?.id ?? null, { reason }),
      status: (status) => (this.decoding = status),
      later: (milliseconds, callback) => {
        const timer = setTimeout(callback, milliseconds);
        return () => clearTimeout(timer);
      },
    });
    this.preview = new HoverPreview(
      () => {
        const { decoder } = this;
        const { prepared } = this.asker;
        return decoder && prepared ? { decoder, prepared } : null;
      },
      (previewed) => (this.previewed = previewed),
      () => performance.now(),
    );
  }

  use(decoder: Decoder | null): void {
    this.decoder = decoder;
    this.asker.use(decoder);
  }

  dispatch(action: Action): void {
    const before = this.state;
    const { state, events, notice } = apply(before, action);
    if (action.type !== 'answered') this.submitting = false; // whoever goes on working is not done
    this.state = state;
    for (const event of events) this.callbacks().onevent?.(event);
    if (notice !== null || events.length > 0) this.notice = notice;
    if (state.doc === before.doc) return;
    if (state.doc.current?.id !== before.doc.current?.id) {
      this.corner = null;
      this.callbacks().onselect?.(state.doc.current?.id ?? null);
    }
    if (state.doc.current) this.preview.stop();
    this.asker.pump();
    if (this.mode !== 'readonly') this.saver.soon();
    if (this.submitting) this.submit();
  }

  log(kind: string, objectId: string | null, data: EditorEvent['data'] = {}): void {
    this.callbacks().onevent?.({ kind, object_id: objectId, data });
  }

  /** A point at a place of the canvas; `t` is when the finger went up, by the event's clock. */
  click(at: At, label: 0 | 1, t: number): void {
    const [x, y] = this.imagePoint(at);
    const first = !this.doc.current && label === 1 && this.mode === 'annotate';
    if (first && !this.isOnImage(at)) return;
    const answer = first ? this.preview.answerAt(x, y) : null;
    const known = answer && this.decoder ? { answer, decoder: this.decoder.kind } : {};
    this.ask({ type: 'point', x, y, label, newId: newId(), ...known }, t);
  }

  box(rect: Rect, t: number): void {
    this.ask({ type: 'box', ...rect, newId: newId() }, t);
  }

  private ask(action: Action, t: number): void {
    const before = this.state.revision;
    this.dispatch(action);
    const { revision, doc } = this.state;
    if (revision === before) return;
    this.clicks.set(revision, t);
    if (!doc.current?.pending) this.measure(revision);
  }

  /** From the finger to the frame that shows its mask. */
  private measure(revision: number): void {
    const t = this.clicks.get(revision);
    if (t === undefined) return;
    this.clicks.delete(revision);
    this.whenShown(() => (this.lastClickMs = performance.now() - t));
  }

  /** Take the mask at a place of the canvas in hand; again: the one around it. */
  take(at: At): void {
    this.dispatch({ type: 'take', ...pointOf(this.imagePoint(at)) });
  }

  /** The pointer moved with nothing pressed: only looks, never touches the document. */
  hover(at: At | null): void {
    this.pointer = at;
    if (at) this.crosshair = null;
    this.lookAt(at);
  }

  hoverInList(id: string | null): void {
    this.hoveredId = id;
    this.hoveredInList = true;
  }

  lookAt(at: At | null): void {
    const on = at && this.isOnImage(at) ? this.imagePoint(at) : null;
    this.hoveredId = on ? (takenAt(this.shown, ...on, null)?.id ?? null) : null;
    this.hoveredInList = false;
    const idle = !this.doc.current && this.mode === 'annotate' && this.tool.tool === 'prompt';
    if (on && idle && this.previewOn && !this.hidden && !this.liveBox) this.preview.at(...on);
    else this.preview.stop();
  }

  stopPreview(): void {
    this.preview.stop();
  }

  setPreview(on: boolean): void {
    if (on === this.previewOn) return;
    this.previewOn = on;
    this.log('preview', null, { on });
    this.notice = `Preview under the pointer ${on ? 'on' : 'off'}.`;
    if (!on) this.preview.stop();
  }

  setHidden(hidden: boolean): void {
    if (hidden === this.hidden) return;
    this.hidden = hidden;
    this.preview.stop();
    this.log(hidden ? 'hide' : 'show', null);
  }

  step(direction: 1 | -1): boolean {
    const next = neighbour(this.state, direction);
    if (next) this.dispatch({ type: 'select', id: next.id });
    return next !== null;
  }

  retry(): void {
    this.asker.retry();
  }

  /** Hand over the finished task: what is in progress is kept, what waits for the model is waited for. */
  submit(): void {
    if (this.mode !== 'annotate') return;
    if (!this.submitting && this.doc.current) this.dispatch({ type: 'commit' });
    if (this.doc.current?.changed) return; // nothing to keep yet, and the notice says so
    this.submitting = this.pending > 0;
    if (this.submitting) {
      this.notice = `Waiting for the model's answer to ${this.pending} of your masks, then submitting.`;
      return;
    }
    this.flush();
    this.callbacks().onsubmit?.(toDraft(this.state));
  }

  skip(reason: string): void {
    this.flush();
    this.callbacks().onskip?.(reason);
  }

  layOut(canvas: Extent): void {
    this.canvas = canvas;
    if (this.laidOut) return;
    this.laidOut = true;
    this.view = fitted(this.task.image, canvas);
  }

  imagePoint(at: At, beyond = false): [number, number] {
    const [x, y] = toImage(this.view, at[0], at[1]);
    if (beyond) return [x, y];
    const { width, height } = this.task.image;
    return [snapped(x, width), snapped(y, height)];
  }

  isOnImage(at: At): boolean {
    const [x, y] = toImage(this.view, at[0], at[1]);
    return x >= 0 && y >= 0 && x < this.task.image.width && y < this.task.image.height;
  }

  /** What was not handed over yet is, now. */
  flush(): void {
    this.saver.flush();
  }

  destroy(): void {
    this.asker.stop();
    this.preview.stop();
    this.flush();
  }
}

function pointOf([x, y]: [number, number]): { x: number; y: number } {
  return { x, y };
}
