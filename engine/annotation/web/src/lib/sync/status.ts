// One line that says where a person's work is: with the service, in this browser, or in danger.

import type { DraftState } from './drafts';
import type { OutboxState } from './outbox';

export type Tone = 'good' | 'busy' | 'warn' | 'bad';

export interface StatusLine {
  tone: Tone;
  text: string;
}

export interface SyncState {
  online: boolean;
  /** Whether the browser keeps what is written to it. */
  durable: boolean;
  signedOut: boolean;
  draft: DraftState | null;
  unsentEvents: number;
  outbox: OutboxState | null;
}

/** The most urgent thing first: what may be lost, then what waits, then what is fine. */
export function statusLine(state: SyncState): StatusLine {
  const { draft, outbox } = state;
  const waiting = waitingText(state);
  const kept = state.durable ? 'kept in this browser' : 'only in this tab';
  if (outbox?.refused.length) {
    const n = outbox.refused.length;
    return { tone: 'bad', text: `${count(n, 'finished image')} could not be handed in` };
  }
  if (draft?.kind === 'lost')
    return { tone: 'bad', text: `This image is no longer yours; work ${kept}` };
  if (draft?.kind === 'conflict')
    return { tone: 'bad', text: 'This image was changed in another tab' };
  if (outbox?.unsafe) {
    return { tone: 'bad', text: 'Do not close this tab: the browser cannot store finished work' };
  }
  if (draft?.kind === 'local-failed')
    return { tone: 'bad', text: 'This browser cannot store your work' };
  if (state.signedOut)
    return { tone: 'bad', text: `Signed out; ${waiting || 'your work'} ${kept}` };
  if (draft?.kind === 'refused') return { tone: 'bad', text: `Not saved: ${draft.error.message}` };
  if (!state.online) {
    return {
      tone: 'warn',
      text: waiting ? `Offline · ${waiting} ${kept}` : 'Offline · all work is sent',
    };
  }
  if (draft?.kind === 'waiting' || (outbox?.error && outbox.waiting)) {
    return { tone: 'warn', text: `No answer from the service · ${waiting || 'your work'} ${kept}` };
  }
  if (!state.durable)
    return { tone: 'warn', text: 'This browser keeps no drafts: do not close the tab' };
  if (outbox?.waiting)
    return { tone: 'busy', text: `Handing in ${count(outbox.waiting, 'image')}…` };
  if (draft?.kind === 'saving') return { tone: 'busy', text: 'Saving…' };
  return { tone: 'good', text: draft ? 'Saved' : 'Connected' };
}

/** "2 finished images, a draft and 14 events", or nothing. */
export function waitingText(state: SyncState): string {
  const parts: string[] = [];
  if (state.outbox?.waiting) parts.push(count(state.outbox.waiting, 'finished image'));
  if (state.draft && state.draft.kind !== 'saved') parts.push('a draft');
  if (state.unsentEvents) parts.push(count(state.unsentEvents, 'event'));
  const last = parts.pop();
  if (!last) return '';
  return parts.length ? `${parts.join(', ')} and ${last}` : last;
}

export function count(n: number, noun: string): string {
  return `${n} ${noun}${n === 1 ? '' : 's'}`;
}
