// What a reviewer says of one submission: a verdict for each object, and a word about the whole.
// A mask that was changed in the editor is a fix; one that was deleted there is rejected.

import type {
  EditorDraft,
  Obj,
  ObjectVerdict,
  ReviewedSubmission,
  ReviewObject,
  Tint,
  Verdict,
  Verdicts,
} from './types';

export const MADE = { kept: 'kept as proposed', corrected: 'corrected', new: 'new' } as const;

export const REASONS = [
  'The edge is off',
  'Part of the object is missing',
  'More than one object',
  'Not an object',
  'Marked twice',
] as const;

export class Judging {
  readonly objects: readonly ReviewObject[];
  selected = $state<string | null>(null);
  /** Masks are missing in the image. */
  incomplete = $state(false);
  reason = $state('');
  #verdicts = $state.raw<ReadonlyMap<string, ObjectVerdict>>(new Map());
  /** Rejected by being deleted in the editor. */
  readonly #erased = new Set<string>();
  readonly #submission: ReviewedSubmission;

  constructor(submission: ReviewedSubmission) {
    this.#submission = submission;
    this.objects = submission.objects;
    this.selected = submission.objects[0]?.id ?? null;
  }

  get submission(): ReviewedSubmission {
    return this.#submission;
  }

  verdictOf(id: string): ObjectVerdict | null {
    return this.#verdicts.get(id) ?? null;
  }

  /** Objects that wait for a verdict. */
  get missing(): number {
    return this.objects.length - this.#verdicts.size;
  }

  /** Whether the task goes back to its annotator. */
  get rejects(): boolean {
    return this.incomplete || [...this.#verdicts.values()].some((one) => one.verdict === 'reject');
  }

  count(verdict: Verdict): number {
    return [...this.#verdicts.values()].filter((one) => one.verdict === verdict).length;
  }

  /** Colours for the editor: the verdict, or how the object came about. */
  get tint(): Record<string, Tint> {
    return Object.fromEntries(
      this.objects.map(({ id, made }) => [id, this.verdictOf(id)?.verdict ?? made]),
    );
  }

  accept(id: string): void {
    // A fix stays one: accepting is about the mask that is seen.
    if (this.verdictOf(id)?.verdict !== 'fix') this.#set({ object_id: id, verdict: 'accept' });
  }

  reject(id: string, reason = ''): void {
    this.#set({ object_id: id, verdict: 'reject', reason });
  }

  forget(id: string): void {
    const verdicts = new Map(this.#verdicts);
    verdicts.delete(id);
    this.#verdicts = verdicts;
  }

  acceptRest(): void {
    for (const { id } of this.objects) if (!this.verdictOf(id)) this.accept(id);
  }

  /** What the reviewer drew: changed masks become fixes, deleted ones rejections. */
  drawn(draft: EditorDraft): void {
    const shown = new Map<string, Obj>(draft.objects.map((object) => [object.id, object]));
    if (draft.current) shown.set(draft.current.id, draft.current);
    for (const { id, rle } of this.objects) {
      const before = this.verdictOf(id);
      const now = shown.get(id);
      if (!now) {
        if (before?.verdict !== 'reject') {
          this.reject(id, REASONS[3]);
          this.#erased.add(id);
        }
      } else if (this.#erased.delete(id)) {
        this.forget(id); // the deletion was undone
      } else if (now.rle.counts !== rle.counts) {
        if (before?.rle?.counts !== now.rle.counts || before.verdict !== 'fix') {
          this.#set({ object_id: id, verdict: 'fix', rle: now.rle });
        }
      } else if (before?.verdict === 'fix') this.forget(id); // undone
    }
  }

  /** Selects the next object without a verdict, or else the next one. */
  next(): void {
    const { objects } = this;
    if (!objects.length) return;
    const at = objects.findIndex(({ id }) => id === this.selected);
    const after = [...objects.slice(at + 1), ...objects.slice(0, at + 1)];
    this.selected = (after.find(({ id }) => !this.verdictOf(id)) ?? after[0])!.id;
  }

  draft(): EditorDraft {
    const { objects, deleted, exhaustive } = this.#submission;
    return {
      objects: objects.map(plainObject),
      deleted: deleted.map(({ id }) => id),
      exhaustive,
      current: null,
    };
  }

  answer(): Omit<Verdicts, 'submission_id'> {
    return {
      verdicts: this.objects.map(({ id }) => this.verdictOf(id)!),
      reason: this.reason.trim() || null,
      incomplete: this.incomplete,
    };
  }

  #set(verdict: ObjectVerdict): void {
    this.#verdicts = new Map(this.#verdicts).set(verdict.object_id, verdict);
  }
}

/** The editor's objects have no `made`, and the service refuses what it does not know. */
function plainObject(object: ReviewObject): Obj {
  const { id, proposal, rle, predicted_iou, prompts, decoder, accepted } = object;
  return { id, proposal, rle, predicted_iou, prompts, decoder, accepted };
}
