// The keys of the editor, in one table that the handler and the help sheet both read.

export type Command =
  | 'candidate-1'
  | 'candidate-2'
  | 'candidate-3'
  | 'candidate-4'
  | 'commit'
  | 'clear'
  | 'undo'
  | 'redo'
  | 'brush'
  | 'eraser'
  | 'smaller'
  | 'larger'
  | 'delete'
  | 'next'
  | 'previous'
  | 'take'
  | 'hide'
  | 'outline'
  | 'fainter'
  | 'stronger'
  | 'preview'
  | 'list'
  | 'zoom-in'
  | 'zoom-out'
  | 'fit'
  | 'actual-size'
  | 'zoom-object'
  | 'pan'
  | 'left'
  | 'right'
  | 'up'
  | 'down'
  | 'add-here'
  | 'remove-here'
  | 'corner-here'
  | 'exhaustive'
  | 'skip'
  | 'submit'
  | 'help'
  | 'panes';

export interface Shortcut {
  readonly command: Command;
  /** Chords such as "Mod+Shift+Z"; Mod is Control, or Command on a Mac. The first one is shown. */
  readonly keys: readonly string[];
  readonly does: string;
  /** Works again and again while the key is down. */
  readonly repeats?: boolean;
  /** Only where the canvas has the focus: elsewhere the key has its usual meaning. */
  readonly canvasOnly?: boolean;
  /** How the sheet shows a row that stands for several; false: one of those. */
  readonly sheet?: { readonly keys: readonly string[]; readonly does: string } | false;
}

export interface ShortcutGroup {
  readonly title: string;
  readonly shortcuts: readonly Shortcut[];
}

export const SHORTCUTS: readonly ShortcutGroup[] = [
  {
    title: 'Masks',
    shortcuts: [
      {
        command: 'commit',
        keys: ['Enter'],
        does: 'Keep the mask, start the next',
        canvasOnly: true,
      },
      { command: 'clear', keys: ['Escape'], does: 'Drop what is in progress' },
      {
        command: 'candidate-1',
        keys: ['1'],
        does: 'First candidate',
        sheet: { keys: ['1', '2', '3', '4'], does: 'Another candidate of the model' },
      },
      { command: 'candidate-2', keys: ['2'], does: 'Second candidate', sheet: false },
      { command: 'candidate-3', keys: ['3'], does: 'Third candidate', sheet: false },
      {
        command: 'candidate-4',
        keys: ['4'],
        does: 'Fourth candidate, after several prompts',
        sheet: false,
      },
      { command: 'undo', keys: ['Mod+Z'], does: 'Undo', repeats: true },
      { command: 'redo', keys: ['Mod+Shift+Z', 'Mod+Y'], does: 'Redo', repeats: true },
      {
        command: 'delete',
        keys: ['Delete', 'Backspace'],
        does: 'Delete the mask in hand or under the pointer',
      },
    ],
  },
  {
    title: 'Correcting',
    shortcuts: [
      { command: 'take', keys: ['V'], does: 'Take the mask under the pointer in hand' },
      {
        command: 'next',
        keys: ['Tab'],
        does: 'Next mask in hand',
        repeats: true,
        canvasOnly: true,
      },
      {
        command: 'previous',
        keys: ['Shift+Tab'],
        does: 'Previous mask in hand',
        repeats: true,
        canvasOnly: true,
      },
      { command: 'brush', keys: ['B'], does: 'Brush: hold, or tap to stay' },
      { command: 'eraser', keys: ['E'], does: 'Eraser: hold, or tap to stay' },
      {
        command: 'smaller',
        keys: ['['],
        does: 'Smaller brush',
        repeats: true,
        sheet: { keys: ['[', ']'], does: 'Brush size' },
      },
      { command: 'larger', keys: [']'], does: 'Larger brush', repeats: true, sheet: false },
    ],
  },
  {
    title: 'Looking',
    shortcuts: [
      { command: 'hide', keys: ['H'], does: 'Hide all masks while held' },
      { command: 'outline', keys: ['O'], does: 'Outlines or filled' },
      {
        command: 'fainter',
        keys: [','],
        does: 'Fainter masks',
        repeats: true,
        sheet: { keys: [',', '.'], does: 'Opacity of masks' },
      },
      { command: 'stronger', keys: ['.'], does: 'Stronger masks', repeats: true, sheet: false },
      { command: 'preview', keys: ['P'], does: 'Preview under the pointer on or off' },
      {
        command: 'zoom-in',
        keys: ['+', '='],
        does: 'Zoom in',
        repeats: true,
        sheet: { keys: ['+', '-'], does: 'Zoom' },
      },
      { command: 'zoom-out', keys: ['-'], does: 'Zoom out', repeats: true, sheet: false },
      { command: 'fit', keys: ['0'], does: 'Fit the image' },
      { command: 'actual-size', keys: ['9'], does: 'Actual size, 100 %' },
      { command: 'zoom-object', keys: ['Z'], does: 'Zoom to the mask in hand' },
      { command: 'pan', keys: ['Space'], does: 'Pan while held, with a drag' },
      { command: 'list', keys: ['L'], does: 'Show or hide the list' },
    ],
  },
  {
    title: 'Without a mouse',
    shortcuts: [
      {
        command: 'left',
        keys: ['ArrowLeft'],
        does: 'Crosshair left',
        sheet: { keys: ['←', '→', '↑', '↓'], does: 'Move the crosshair; finer with Shift' },
        repeats: true,
        canvasOnly: true,
      },
      {
        command: 'right',
        keys: ['ArrowRight'],
        does: 'Crosshair right',
        sheet: false,
        repeats: true,
        canvasOnly: true,
      },
      {
        command: 'up',
        keys: ['ArrowUp'],
        does: 'Crosshair up',
        sheet: false,
        repeats: true,
        canvasOnly: true,
      },
      {
        command: 'down',
        keys: ['ArrowDown'],
        does: 'Crosshair down',
        sheet: false,
        repeats: true,
        canvasOnly: true,
      },
      { command: 'add-here', keys: ['F'], does: 'Foreground point here; begin or end a stroke' },
      { command: 'remove-here', keys: ['G'], does: 'Background point here' },
      { command: 'corner-here', keys: ['C'], does: 'First, then second corner of a box' },
      { command: 'panes', keys: ['F6'], does: 'To the next part of the page' },
    ],
  },
  {
    title: 'The image',
    shortcuts: [
      { command: 'exhaustive', keys: ['X'], does: 'Nothing is left to annotate' },
      { command: 'submit', keys: ['Mod+Enter'], does: 'Submit the image' },
      { command: 'skip', keys: ['S'], does: 'Skip the image, with a reason' },
      { command: 'help', keys: ['?'], does: 'This sheet' },
    ],
  },
];

const ALL: readonly Shortcut[] = SHORTCUTS.flatMap(({ shortcuts }) => shortcuts);

const BY_CHORD = new Map(
  ALL.flatMap((shortcut) => shortcut.keys.map((chord) => [chord.toLowerCase(), shortcut] as const)),
);

/** What the table needs of a KeyboardEvent. */
export interface KeyPress {
  readonly key: string;
  readonly ctrlKey: boolean;
  readonly metaKey: boolean;
  readonly shiftKey: boolean;
  readonly altKey: boolean;
}

/** Keys that layouts put on Shift: their Shift is part of the character. */
const PRINTED = new Set(['?', '+', '=', '-', '[', ']', ',', '.']);

/** The shortcut of a key press; with arrows, Shift means "finer" and does not change the key. */
export function shortcutOf(press: KeyPress): Shortcut | null {
  if (press.altKey && !PRINTED.has(press.key)) return null; // AltGr writes [ and ] on many layouts
  const key = press.key === ' ' ? 'space' : press.key.toLowerCase();
  const mod = (press.ctrlKey || press.metaKey) && !press.altKey ? 'mod+' : '';
  if (mod && PRINTED.has(key)) return null; // the browser's own zoom
  const shift = press.shiftKey && !PRINTED.has(key) && !key.startsWith('arrow') ? 'shift+' : '';
  return BY_CHORD.get(mod + shift + key) ?? null;
}

export function shortcutFor(command: Command): Shortcut {
  const found = ALL.find((shortcut) => shortcut.command === command);
  if (!found) throw new RangeError(`no key for ${command}`);
  return found;
}

const SIGNS: Record<string, string> = {
  ArrowLeft: '←',
  ArrowRight: '→',
  ArrowUp: '↑',
  ArrowDown: '↓',
  Escape: 'Esc',
  Delete: 'Del',
};

/** A chord as people read it: ["Ctrl", "Z"], on a Mac ["⌘", "Z"]. */
export function readable(chord: string, mac: boolean): readonly string[] {
  const parts = chord === '+' ? ['+'] : chord.split('+');
  return parts.map((part) => {
    if (part === 'Mod') return mac ? '⌘' : 'Ctrl';
    if (part === 'Shift' && mac) return '⇧';
    return SIGNS[part] ?? part;
  });
}

/** A group as the sheet lists it. */
export function sheetRows(group: ShortcutGroup, mac: boolean): readonly SheetRow[] {
  return group.shortcuts.flatMap(({ sheet, keys, does }) => {
    if (sheet === false) return [];
    return sheet ? [sheet] : [{ keys: readable(keys[0]!, mac), does }];
  });
}

export interface SheetRow {
  readonly keys: readonly string[];
  readonly does: string;
}

/** For tooltips and aria-keyshortcuts: "Undo (Ctrl Z)". */
export function hint(command: Command, mac: boolean, text?: string): string {
  const { does, keys } = shortcutFor(command);
  return `${text ?? does} (${readable(keys[0]!, mac).join(' ')})`;
}
