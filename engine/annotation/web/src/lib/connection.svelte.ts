// Who is signed in, what this browser still has to send, and whether the service can be reached:
// one object for the whole page, which its components read and the sync layer writes.

import { Api, ApiError } from './api';
import { browserClock } from './sync/clock';
import type { DraftState } from './sync/drafts';
import { Outbox, type OutboxState } from './sync/outbox';
import { forgetOld } from './sync/housekeeping';
import { statusLine, type SyncState } from './sync/status';
import { openStore, type Store } from './sync/store';
import type { Me } from './types';

export class Connection {
  me = $state.raw<Me | null>(null);
  signedOut = $state(false);
  online = $state(navigator.onLine);
  durable = $state(true);
  draft = $state.raw<DraftState | null>(null);
  unsentEvents = $state(0);
  waiting = $state.raw<OutboxState | null>(null);

  readonly api = new Api({ onsignedout: () => (this.signedOut = true) });
  readonly status = $derived(statusLine(this.#state));
  #store: Store | null = null;
  #outbox: Outbox | null = null;
  /** What else wants to know that the network or the tab is back. */
  readonly #wakers = new Set<() => void>();

  constructor() {
    addEventListener('online', () => {
      this.online = true;
      this.wake();
    });
    addEventListener('offline', () => (this.online = false));
    document.addEventListener('visibilitychange', () => {
      if (document.visibilityState === 'visible') this.wake();
    });
    addEventListener('beforeunload', (event) => {
      if (this.#endangered) event.preventDefault();
    });
  }

  get store(): Store {
    if (!this.#store) throw new Error('nobody is signed in: no store is open');
    return this.#store;
  }

  get outbox(): Outbox {
    if (!this.#outbox) throw new Error('nobody is signed in: no outbox is open');
    return this.#outbox;
  }

  /** Asks the service who this browser is. False: nobody. Throws when the service cannot be asked. */
  async resume(): Promise<boolean> {
    try {
      await this.#enter(await this.api.me());
      return true;
    } catch (error) {
      if (error instanceof ApiError && error.signedOut) return false;
      throw error;
    }
  }

  async join(token: string): Promise<Me> {
    const me = await this.api.join(token);
    await this.#enter(me);
    return me;
  }

  async leave(): Promise<void> {
    await this.api.leave();
    this.#outbox?.close();
    this.#store?.close();
    this.#store = this.#outbox = null;
    this.me = null;
    this.signedOut = true;
  }

  onwake(callback: () => void): () => void {
    this.#wakers.add(callback);
    return () => this.#wakers.delete(callback);
  }

  wake(): void {
    this.#outbox?.resume();
    for (const callback of this.#wakers) callback();
  }

  async #enter(me: Me): Promise<void> {
    const before = this.me;
    this.signedOut = false;
    if (before && before.name === me.name && before.service === me.service) {
      this.wake(); // the same person is back: what waited goes on
      return;
    }
    this.#outbox?.close();
    this.#store?.close();
    this.#store = await openStore(`${me.service ?? ''}:${me.name}`);
    this.durable = this.#store.durable;
    this.#outbox = new Outbox({
      store: this.#store,
      api: this.api,
      clock: browserClock,
      onstate: (state) => (this.waiting = state),
    });
    await forgetOld(this.#store, browserClock.now());
    await this.#outbox.open();
    // The browser may empty what nobody asked it to keep.
    void navigator.storage?.persist?.().catch(() => false);
    this.me = me;
  }

  /** Whether closing the tab would lose something. */
  get #endangered(): boolean {
    const unsent = Boolean(this.waiting?.waiting || (this.draft && this.draft.kind !== 'saved'));
    return Boolean(this.waiting?.unsafe) || (!this.durable && unsent);
  }

  get #state(): SyncState {
    return {
      online: this.online,
      durable: this.durable,
      signedOut: this.signedOut,
      draft: this.draft,
      unsentEvents: this.unsentEvents,
      outbox: this.waiting,
    };
  }
}
