// How long a click takes in this browser, measured in the page: from the request to the masks.
// `window.bench` is driven by tests/click_page.py. The benchmark lets contestants answer in turn, so that
// whatever else the machine does weighs on all of them.

import { Api } from '../src/lib/api';
import { BrowserDecoder, serviceSource } from '../src/lib/decoder';
import type { Answer, Candidate, DecoderPrompts } from '../src/lib/decoder';
import { toRle } from '../src/lib/masks';
import type { DecoderDescription, Rle, TaskImage } from '../src/lib/types';
import type { PublicReply, PublicRequest } from './public_worker';

/** A model and the image that is clicked at; addresses are folders with a slash at their end. */
interface Contestant {
  readonly kind: 'ours' | 'public' | 'public-low-res';
  readonly base: string;
  readonly width: number;
  readonly height: number;
  readonly threads: number;
}

interface Click {
  readonly ms: number;
  /** The masks on offer, to see that all contestants answer alike. */
  readonly rles: Rle[];
}

/** How a click travels: points and box in pixels of the image; `after` goes on from that candidate. */
interface Prompts {
  readonly points: DecoderPrompts['points'];
  readonly box: DecoderPrompts['box'];
  readonly after: number | null;
}

type Answerer = (prompts: DecoderPrompts) => Promise<Answer>;

async function ours(contestant: Contestant): Promise<Answerer> {
  const { base, width, height, threads } = contestant;
  const description = (await (await fetch(`${base}decoder.json`)).json()) as DecoderDescription;
  const source = serviceSource(new Api(), base);
  const decoder = await BrowserDecoder.load(description, source, threads);
  const embedding = `${base}embedding.safetensors`;
  const image: TaskImage = { id: base, width, height, pixels: '', preview: '', embedding };
  const prepared = await decoder.prepare({ id: base, image });
  return (prompts) => decoder.decode(prepared, prompts);
}

/** SAM's public export, which takes the whole embedding with every click. */
async function theirs({ kind, base, width, height, threads }: Contestant): Promise<Answerer> {
  const worker = new Worker(new URL('./public_worker.ts', import.meta.url), { type: 'module' });
  const ask = (request: PublicRequest): Promise<PublicReply> =>
    new Promise((resolve, reject) => {
      worker.onmessage = ({ data }: MessageEvent<PublicReply>) =>
        data.error === null ? resolve(data) : reject(new Error(data.error));
      worker.onerror = (event) => reject(new Error(event.message));
      worker.postMessage(request);
    });
  await ask({ kind: 'load', base, file: `${kind}.onnx`, width, height, threads });
  return async (prompts) => {
    const began = performance.now();
    const { candidates } = await ask({ kind: 'decode', prompts });
    return { candidates, best: 0, milliseconds: performance.now() - began };
  };
}

interface Open {
  readonly answer: Answerer;
  last: readonly Candidate[];
}

const opened: Open[] = [];

/** Start a contestant; its number is its place in the order of starting. Returns milliseconds. */
async function open(contestant: Contestant): Promise<number> {
  const began = performance.now();
  const answer = await (contestant.kind === 'ours' ? ours : theirs)(contestant);
  opened.push({ answer, last: [] });
  return performance.now() - began;
}

async function click(contestant: number, { points, box, after }: Prompts): Promise<Click> {
  const clicked = opened[contestant]!;
  const mask = after === null ? null : clicked.last[after]!.logits;
  const { candidates, milliseconds } = await clicked.answer({ points, box, mask });
  clicked.last = candidates;
  return { ms: milliseconds, rles: candidates.map((candidate) => toRle(candidate.mask)) };
}

const bench = {
  open,
  click,
  isolated: crossOriginIsolated,
  cores: navigator.hardwareConcurrency,
};
declare global {
  interface Window {
    bench: typeof bench;
  }
}
window.bench = bench;
