// From key events to commands: which keys are the editor's and which are the page's.

import { shortcutOf, type Command } from '../../lib/editor/shortcuts';
import { perform, release, type Surroundings } from './commands';
import type { Gestures } from './gestures.svelte';
import type { EditorSession } from './session.svelte';

/** Inputs that take typed characters keep all their keys; a slider keeps its arrows. */
const TYPING = 'input:not([type=checkbox], [type=range]), textarea, select, [contenteditable]';

/** Keys of people who go without a mouse. */
const MOVING = new Set(['Tab', 'F6', 'ArrowLeft', 'ArrowRight', 'ArrowUp', 'ArrowDown']);

export class Keyboard {
  /** Commands by the physical key that is down, so that a key that comes up ends what it began. */
  private readonly held = new Map<string, Command>();
  private repeats = 0;

  constructor(
    private readonly session: EditorSession,
    private readonly gestures: Gestures,
    private readonly around: Surroundings,
  ) {}

  down(event: KeyboardEvent, canvas: HTMLElement | undefined): void {
    const target = event.target instanceof Element ? event.target : null;
    if (canvas?.closest('[inert]')) return; // the next image is on its way
    if (event.defaultPrevented || target?.closest(TYPING) || target?.closest('dialog')) return;
    if (MOVING.has(event.key)) this.session.byKeyboard = true;
    const shortcut = shortcutOf(event);
    if (!shortcut) return;
    const onCanvas = target === canvas || target === document.body;
    if (!onCanvas && (shortcut.canvasOnly || event.key === ' ')) return;
    const fresh = !event.repeat;
    this.repeats = fresh ? 0 : this.repeats + 1;
    if (!fresh && !shortcut.repeats) {
      if (this.held.has(event.code)) event.preventDefault(); // a held space would scroll
      return;
    }
    const press = { t: event.timeStamp, shift: event.shiftKey, repeats: this.repeats };
    const { session, gestures, around } = this;
    if (!perform(shortcut.command, press, session, gestures, around)) return;
    this.held.set(event.code, shortcut.command);
    event.preventDefault();
  }

  up(event: KeyboardEvent): void {
    const command = this.held.get(event.code);
    this.held.delete(event.code);
    if (command) release(command, event.timeStamp, this.session, this.gestures);
  }

  /** The window lost the focus: keys come up where nobody sees it. */
  letGo(): void {
    for (const command of this.held.values())
      release(command, performance.now(), this.session, this.gestures);
    this.held.clear();
  }

  /** A button of the page. */
  run(command: Command): void {
    const press = { t: performance.now(), shift: false, repeats: 0 };
    perform(command, press, this.session, this.gestures, this.around);
  }
}
