// Fills the browser's cache with the next images and embeddings while somebody works on this one.
// The addresses are immutable, so that the next task finds them without asking the service.
//   const prefetch = new Prefetch({ api });  prefetch.start(campaignId);  prefetch.stop();

import { ApiError, type Api } from '../api';
import type { Upcoming } from '../types';

const AHEAD = 2;
/** A page that is open for days forgets the oldest addresses: the browser may have, too. */
const REMEMBERED = 64;

export interface PrefetchOptions {
  api: Pick<Api, 'upcoming' | 'bytes'>;
  /** The person asked the browser to save data. */
  saveData?: boolean;
  onfetched?: (url: string) => void;
}

export class Prefetch {
  readonly #o: PrefetchOptions;
  readonly #known = new Set<string>();
  #abort: AbortController | null = null;

  constructor(options: PrefetchOptions) {
    this.#o = options;
  }

  /**
   * Looks ahead in a campaign, and says what is fetched. A dead network or a slow service only means
   * that nothing is ahead. Embeddings are of no use here where the service decodes.
   */
  async start(campaignId: string, embeddings = true): Promise<Upcoming[]> {
    this.stop();
    if (this.#o.saveData) return [];
    const abort = new AbortController();
    this.#abort = abort;
    const ahead: Upcoming[] = [];
    try {
      const upcoming = await this.#o.api.upcoming(campaignId, AHEAD, abort.signal);
      // One after the other: the task in hand has priority on the network.
      for (const next of upcoming.slice(0, AHEAD)) {
        const { image, decoder } = next;
        const urls = [decoder, image.preview, image.pixels];
        if (embeddings) urls.push(image.embedding);
        for (const url of urls) await this.#fill(url, abort.signal);
        ahead.push(next);
      }
    } catch (error) {
      if (!abort.signal.aborted && !(error instanceof ApiError)) throw error;
    }
    return ahead;
  }

  stop(): void {
    this.#abort?.abort();
    this.#abort = null;
  }

  async #fill(url: string, signal: AbortSignal): Promise<void> {
    if (this.#known.has(url)) return;
    await this.#o.api.bytes(url, { signal, timeoutMs: 120_000, patienceMs: 60_000 });
    this.#known.add(url);
    const [oldest] = this.#known;
    if (this.#known.size > REMEMBERED && oldest) this.#known.delete(oldest);
    this.#o.onfetched?.(url);
  }
}
