// Which decoder answers: the browser's, unless the server is clearly faster or the browser cannot.
// Both are measured on the task at hand, which is then ready for its first click.

import type { Api } from '../api';
import type { DecoderDescription, DecoderKind } from '../types';
import { BrowserDecoder } from './browser';
import { ServerDecoder } from './server';
import { serviceSource } from './source';
import type { Decoder, DecoderPrompts, DecoderTask } from './types';

/** A click is felt as immediate up to here: no need to ask the server how fast it is. */
const FAST_ENOUGH_MS = 60;
/** The server must be this many times faster: its time is shared with everybody else. */
const CLEARLY_FASTER = 2;
const ROUNDS = 5;
const MOST_THREADS = 4;
const SMALL_DECODER_BYTES = 4_000_000;

export interface ChooseOptions {
  readonly task: DecoderTask;
  readonly lease: () => string;
  readonly api: Api;
  /** Folder of the model's files, with a slash at its end. */
  readonly base: string;
  /** Take this one without comparing. */
  readonly only?: DecoderKind | undefined;
}

export interface Measured {
  readonly kind: DecoderKind;
  /** Median milliseconds of a click; null where it was not measured. */
  readonly browserMs: number | null;
  readonly serverMs: number | null;
  readonly threads: number;
  /** Why this one, in a sentence. */
  readonly reason: string;
}

export interface Chosen {
  readonly decoder: Decoder;
  readonly measured: Measured;
}

/** Start the browser's decoder, measure it, and compare it with the server's where it is slow. */
export async function chooseDecoder(
  description: DecoderDescription,
  options: ChooseOptions,
): Promise<Chosen> {
  const { api, base, lease, only, task } = options;
  const server = (): Decoder => new ServerDecoder(description, api, lease);
  if (only === 'server') return chosen(server(), null, null, 'The server was asked for.');
  let browser: Decoder;
  try {
    const threads = threadsHere(description);
    browser = await BrowserDecoder.load(description, serviceSource(api, base), threads);
  } catch (error) {
    if (only === 'browser') throw error;
    return chosen(server(), null, null, `This browser cannot run the model: ${message(error)}`);
  }
  const browserMs = await medianMs(browser, task);
  if (only === 'browser') return chosen(browser, browserMs, null, 'The browser was asked for.');
  if (browserMs <= FAST_ENOUGH_MS) return chosen(browser, browserMs, null, 'It is fast enough.');
  return compared(browser, browserMs, server(), task);
}

/** "12 ms in the browser" */
export function describeMeasured({ kind, browserMs, serverMs }: Measured): string {
  const ms = kind === 'browser' ? browserMs : serverMs;
  const where = kind === 'browser' ? 'in the browser' : 'on the server';
  return ms === null ? where : `${Math.round(ms)} ms ${where}`;
}

/**
 * Threads that wasm may use: shared memory needs an isolated page. A small decoder leaves a core to
 * the page, whose drawing would otherwise hold up every second thread; a large one takes all.
 */
export function threadsHere({ files }: Pick<DecoderDescription, 'files'>): number {
  if (!globalThis.crossOriginIsolated) return 1;
  const cores = navigator.hardwareConcurrency - (files.decode.bytes < SMALL_DECODER_BYTES ? 1 : 0);
  return Math.max(1, Math.min(MOST_THREADS, cores));
}

async function compared(
  browser: Decoder,
  browserMs: number,
  server: Decoder,
  task: DecoderTask,
): Promise<Chosen> {
  let serverMs: number;
  try {
    serverMs = await medianMs(server, task);
  } catch (error) {
    server.dispose();
    return chosen(browser, browserMs, null, `The server does not decode: ${message(error)}`);
  }
  const faster = serverMs * CLEARLY_FASTER < browserMs;
  (faster ? browser : server).dispose();
  return faster
    ? chosen(server, browserMs, serverMs, 'The server is clearly faster.')
    : chosen(browser, browserMs, serverMs, 'The server is not clearly faster.');
}

/** The median of a few decodes, after one that warms up. */
async function medianMs(decoder: Decoder, task: DecoderTask): Promise<number> {
  const prepared = await decoder.prepare(task);
  const { width, height } = task.image;
  const times: number[] = [];
  for (let round = 0; round <= ROUNDS; round++) {
    const point = { x: (width * (round + 1)) / (ROUNDS + 2), y: height / 2, label: 1 } as const;
    const prompts: DecoderPrompts = { points: [point], box: null, mask: null };
    const { milliseconds } = await decoder.decode(prepared, prompts);
    if (round > 0) times.push(milliseconds);
  }
  return times.sort((a, b) => a - b)[Math.floor(times.length / 2)]!;
}

function chosen(
  decoder: Decoder,
  browserMs: number | null,
  serverMs: number | null,
  reason: string,
): Chosen {
  const { kind, threads } = decoder;
  return { decoder, measured: { kind, browserMs, serverMs, threads, reason } };
}

function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
