// The mask that a click would give, shown while the pointer rests or moves with nothing in progress. Only
// where the decoder is fast enough; one question at a time, always about the newest place.

import type { Answer, Decoder, Prepared } from '../decoder';

export interface Previewed {
  readonly x: number;
  readonly y: number;
  readonly answer: Answer;
}

/** Slower than this a preview lags behind the hand and disturbs. */
const FAST_MS = 90;
const REMEMBERED = 5;

export class HoverPreview {
  /** The newest answer, as long as the pointer is where it was asked. */
  shown: Previewed | null = null;
  private wanted: { x: number; y: number } | null = null;
  private busy = false;
  private generation = 0;
  private readonly times: number[] = [];

  constructor(
    private readonly source: () => { decoder: Decoder; prepared: Prepared } | null,
    private readonly show: (previewed: Previewed | null) => void,
    private readonly now: () => number,
  ) {}

  /** The typical time of an answer; null before the first. */
  get typicalMs(): number | null {
    if (this.times.length === 0) return null;
    return [...this.times].sort((a, b) => a - b)[this.times.length >> 1] ?? null;
  }

  get isFast(): boolean {
    return (this.typicalMs ?? 0) <= FAST_MS;
  }

  /** The pointer is over this image point. */
  at(x: number, y: number): void {
    if (this.wanted?.x === x && this.wanted.y === y) return;
    this.wanted = { x, y };
    if (this.isFast) void this.ask();
    else this.set(null);
  }

  /** Nothing to preview: the pointer left, something is in progress, or it was switched off. */
  stop(): void {
    this.wanted = null;
    this.generation++;
    this.set(null);
  }

  /** The answer for exactly this point, if the preview has it already. */
  answerAt(x: number, y: number): Answer | null {
    return this.shown?.x === x && this.shown.y === y ? this.shown.answer : null;
  }

  /** How long a click took: after slow previews, fast clicks bring them back. */
  clickTook(milliseconds: number): void {
    if (!this.isFast) this.note(milliseconds);
  }

  private note(milliseconds: number): void {
    this.times.push(milliseconds);
    if (this.times.length > REMEMBERED) this.times.shift();
  }

  private async ask(): Promise<void> {
    const { wanted, generation } = this;
    const source = this.source();
    if (this.busy || !wanted || !source) return;
    this.busy = true;
    const began = this.now();
    try {
      const points = [{ ...wanted, label: 1 as const }];
      const answer = await source.decoder.preview(source.prepared, {
        points,
        box: null,
        mask: null,
      });
      this.note(this.now() - began);
      if (answer && generation === this.generation) this.set({ ...wanted, answer });
    } catch {
      // A click will meet the same fault, and say so; a preview that fails is only not there.
      this.wanted = null;
      this.set(null);
    } finally {
      this.busy = false;
    }
    if (this.wanted && this.wanted !== wanted && this.isFast) void this.ask();
  }

  private set(shown: Previewed | null): void {
    if (shown === this.shown) return;
    this.shown = shown;
    this.show(shown);
  }
}
