// Keeps the unsent state of one task: in this browser at once, at the service a moment later, and
// never over somebody else's work. After a reload it says which of the two copies to go on with.
//   const keeper = new DraftKeeper({ store, api, clock, task, lease });
//   const start = await keeper.begin();   keeper.change(draft);   await keeper.flush();

import { ApiError, type Api } from '../api';
import type { Draft, EditorDraft, Obj, Task } from '../types';
import { backoffMs } from './backoff';
import type { Clock } from './clock';
import type { Store } from './store';

const QUIET_MS = 800;
const LONGEST_WAIT_MS = 5_000;
/** Attempts whose answers may be lost; a page that fails more often asks the person. */
const REMEMBERED = 20;

/** What the browser holds of a task's draft. */
export interface LocalDraft {
  task_id: string;
  image_id: string;
  draft: EditorDraft;
  /** The service's version that `draft` continues; 0 for none. */
  base_version: number;
  /** Digests of what was sent and not acknowledged: tells our own late write from another tab's. */
  sent: string[];
  /** Whether the service has not acknowledged this state yet. */
  unsent: boolean;
  saved_at_ms: number;
}

export type Start =
  | { from: 'nothing'; draft: null }
  | { from: 'service' | 'browser'; draft: EditorDraft }
  | { from: 'both'; browser: EditorDraft; browserSavedAtMs: number; service: EditorDraft };

export type DraftState =
  | { kind: 'saved' }
  | { kind: 'saving' }
  | { kind: 'waiting'; error: ApiError }
  | { kind: 'conflict'; service: Draft }
  | { kind: 'lost' }
  | { kind: 'refused'; error: ApiError }
  | { kind: 'local-failed'; message: string };

export interface DraftOptions {
  store: Store;
  api: Pick<Api, 'saveDraft'>;
  clock: Clock;
  task: Task;
  lease: () => string;
  random?: () => number;
  onstate?: (state: DraftState) => void;
}

export class DraftKeeper {
  readonly #o: DraftOptions;
  #local: LocalDraft;
  #cancelTimer: (() => void) | null = null;
  #firstUnsentMs: number | null = null;
  #failures = 0;
  #sending: Promise<void> | null = null;
  #storing: Promise<void> = Promise.resolve();
  #stored = true;
  #stopped = false;
  #blocked = false;

  constructor(options: DraftOptions) {
    this.#o = options;
    this.#local = this.#blank(options.task.draft);
  }

  /** Compares the browser's copy with the service's. Ask the person where it says `both`. */
  async begin(): Promise<Start> {
    const service = this.#o.task.draft;
    const kept = await this.#o.store.get<LocalDraft>('drafts', this.#o.task.id);
    const local = kept?.image_id === this.#o.task.image.id ? kept : undefined;
    const serviceVersion = service?.version ?? 0;
    if (!local || !local.unsent || (service && digest(service) === digest(local.draft))) {
      return service
        ? { from: 'service', draft: content(service) }
        : { from: 'nothing', draft: null };
    }
    const ours = service !== null && local.sent.includes(digest(service));
    if (local.base_version === serviceVersion || ours || !service) {
      this.#local = { ...local, base_version: serviceVersion };
      this.#schedule(QUIET_MS);
      return { from: 'browser', draft: local.draft };
    }
    return {
      from: 'both',
      browser: local.draft,
      browserSavedAtMs: local.saved_at_ms,
      service: content(service),
    };
  }

  /** Takes a new state. Writes it to the browser now, to the service when the hand rests. */
  change(draft: EditorDraft): void {
    if (this.#stopped) return;
    this.#local = {
      ...this.#local,
      draft,
      unsent: true,
      saved_at_ms: this.#o.clock.now(),
    };
    void this.#store();
    if (this.#blocked) return;
    this.#firstUnsentMs ??= this.#o.clock.now();
    if (this.#failures) return; // the retry that is planned sends the newest state
    const waited = this.#o.clock.now() - this.#firstUnsentMs;
    this.#schedule(Math.max(0, Math.min(QUIET_MS, LONGEST_WAIT_MS - waited)));
    this.#tell({ kind: 'saving' });
  }

  /** Sends what is unsent now: before the tab is hidden, when the network is back. */
  async flush(): Promise<void> {
    this.#cancelTimer?.();
    this.#cancelTimer = null;
    await this.#store();
    if (this.#stopped || this.#blocked || !this.#local.unsent) return;
    await this.#send();
  }

  /** After a conflict: goes on with this draft, over the service's one that the person has seen. */
  async overwrite(seenVersion: number, draft: EditorDraft): Promise<void> {
    this.#local = { ...this.#local, draft, base_version: seenVersion, sent: [], unsent: true };
    this.#blocked = false;
    await this.flush();
  }

  /** After a conflict or a choice: goes on with the service's draft; the browser's copy is dropped. */
  async adopt(service: Draft): Promise<void> {
    this.#local = this.#blank(service);
    this.#blocked = false;
    await this.#o.store.write([{ put: 'drafts', key: this.#o.task.id, value: this.#local }]);
    this.#tell({ kind: 'saved' });
  }

  get unsent(): boolean {
    return this.#local.unsent;
  }

  /** Ends the keeping: the task is finished, skipped or left. Nothing is sent any more. */
  stop(): void {
    this.#stopped = true;
    this.#cancelTimer?.();
    this.#cancelTimer = null;
  }

  #blank(service: Draft | null): LocalDraft {
    const empty = { objects: [], deleted: [], exhaustive: false, current: null };
    return {
      task_id: this.#o.task.id,
      image_id: this.#o.task.image.id,
      draft: service ? content(service) : empty,
      base_version: service?.version ?? 0,
      sent: [],
      unsent: false,
      saved_at_ms: this.#o.clock.now(),
    };
  }

  /** One write at a time; states that arrive meanwhile are written together by the next. */
  #store(): Promise<void> {
    this.#stored = false;
    this.#storing = this.#storing.then(async () => {
      if (this.#stored || this.#stopped) return;
      this.#stored = true;
      try {
        await this.#o.store.write([{ put: 'drafts', key: this.#o.task.id, value: this.#local }]);
      } catch (error) {
        this.#tell({ kind: 'local-failed', message: String(error) });
      }
    });
    return this.#storing;
  }

  #schedule(milliseconds: number): void {
    this.#cancelTimer?.();
    this.#cancelTimer = this.#o.clock.after(milliseconds, () => {
      this.#cancelTimer = null;
      void this.#send();
    });
  }

  #send(): Promise<void> {
    this.#sending ??= this.#sendNow().finally(() => {
      this.#sending = null;
      if (this.#local.unsent && !this.#cancelTimer && !this.#stopped && !this.#blocked) {
        this.#schedule(QUIET_MS);
      }
    });
    return this.#sending;
  }

  async #sendNow(): Promise<void> {
    const sent = this.#local.draft;
    const version = this.#local.base_version;
    const attempts = [...this.#local.sent, digest(sent)].slice(-REMEMBERED);
    this.#local = { ...this.#local, sent: attempts };
    this.#firstUnsentMs = null;
    await this.#store(); // so that a reload knows this write for its own
    try {
      const answer = await this.#o.api.saveDraft(this.#o.task.id, this.#o.lease(), {
        ...sent,
        version,
      });
      if (this.#stopped) return;
      this.#failures = 0;
      const newest = this.#local.draft === sent;
      this.#local = { ...this.#local, base_version: answer.version, sent: [], unsent: !newest };
      await this.#store();
      this.#tell({ kind: newest ? 'saved' : 'saving' });
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (!this.#stopped) this.#failed(error);
    }
  }

  #failed(error: ApiError): void {
    const service = conflictOf(error);
    const arrived = service && digest(service);
    if (arrived && this.#local.sent.includes(arrived)) {
      // An earlier write of ours had arrived and only its answer was lost.
      const unsent = digest(this.#local.draft) !== arrived;
      this.#local = { ...this.#local, base_version: service.version, sent: [], unsent };
      this.#failures = 0;
      void this.#store();
      this.#tell({ kind: unsent ? 'saving' : 'saved' });
    } else if (error.temporary) {
      this.#failures += 1;
      const random = (this.#o.random ?? Math.random)();
      this.#schedule(backoffMs(this.#failures, random, error.retryAfterMs));
      this.#tell({ kind: 'waiting', error });
    } else {
      this.#blocked = true;
      if (service) this.#tell({ kind: 'conflict', service });
      else if (error.leaseLost) this.#tell({ kind: 'lost' });
      else this.#refused(error);
    }
  }

  /** Signed out or not acceptable: the next change tries again, the browser's copy stays. */
  #refused(error: ApiError): void {
    this.#blocked = false;
    this.#failures = 0;
    this.#cancelTimer = this.#o.clock.after(LONGEST_WAIT_MS, () => (this.#cancelTimer = null));
    this.#tell({ kind: 'refused', error });
  }

  #tell(state: DraftState): void {
    if (!this.#stopped) this.#o.onstate?.(state);
  }
}

function content(draft: Draft): EditorDraft {
  const { objects, deleted, exhaustive, current } = draft;
  return { objects, deleted, exhaustive, current };
}

function conflictOf(error: ApiError): Draft | null {
  const draft = error.details['draft'] as Draft | undefined | null;
  return error.code === 'draft_conflict' && draft ? draft : null;
}

/** Equal for drafts that look the same to a person: the same masks, deletions and flags. */
export function digest(draft: EditorDraft): string {
  const one = (object: Obj): string =>
    [object.id, object.rle.counts, object.accepted, object.prompts.length].join(' ');
  const parts = [
    ...draft.objects.map(one),
    'deleted',
    ...draft.deleted,
    String(draft.exhaustive),
    draft.current ? one(draft.current) : '',
  ];
  return fnv1a(parts.join('\n'));
}

/** A short, stable digest of a text; collisions would need a person who aims for one. */
function fnv1a(text: string): string {
  let low = 0x811c9dc5;
  let high = 0x1000193;
  for (let i = 0; i < text.length; i++) {
    low = Math.imul(low ^ text.charCodeAt(i), 0x01000193);
    high = Math.imul(high ^ text.charCodeAt(i), 0x85ebca6b);
  }
  return (low >>> 0).toString(16).padStart(8, '0') + (high >>> 0).toString(16).padStart(8, '0');
}
