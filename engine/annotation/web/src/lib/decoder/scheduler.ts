// One thing at a time, in the order that a person feels: clicks as they came, then the preview under
// the cursor (the newest only), then what can wait.

/** From first to last. */
export const RANKS = ['click', 'preview', 'later'] as const;
export type Rank = (typeof RANKS)[number];

interface Job {
  readonly start: () => Promise<void>;
  readonly drop: () => void;
}

export class Scheduler {
  readonly #waiting: Record<Rank, Job[]> = { click: [], preview: [], later: [] };
  #busy = false;

  /** Do the work when its turn comes; it is never dropped. */
  add<T>(rank: 'click' | 'later', work: () => Promise<T>): Promise<T> {
    if (rank === 'click') this.#dropPreviews(); // they show what was before the click
    return new Promise((resolve, reject) => {
      const start = (): Promise<void> => Promise.resolve().then(work).then(resolve, reject);
      this.#push(rank, { start, drop: () => undefined });
    });
  }

  /** Do the work unless something newer comes before its turn: then the answer is null. */
  preview<T>(work: () => Promise<T>): Promise<T | null> {
    this.#dropPreviews();
    return new Promise((resolve, reject) => {
      const start = (): Promise<void> => Promise.resolve().then(work).then(resolve, reject);
      this.#push('preview', { start, drop: () => resolve(null) });
    });
  }

  #dropPreviews(): void {
    for (const job of this.#waiting.preview.splice(0)) job.drop();
  }

  #push(rank: Rank, job: Job): void {
    this.#waiting[rank].push(job);
    void this.#go();
  }

  async #go(): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    for (let job = this.#next(); job; job = this.#next()) await job.start();
    this.#busy = false;
  }

  #next(): Job | undefined {
    for (const rank of RANKS) {
      const job = this.#waiting[rank].shift();
      if (job) return job;
    }
    return undefined;
  }
}
