// The worker in which masks are computed, so that the page never waits for them. It answers one
// message after the other; what comes first is the page's business (scheduler.ts).

import { candidatesOf } from './candidates';
import type { AnyRequest, Envelope, Reply } from './protocol';
import type { Runtime } from './runtime';
import { DecoderError, type Candidate } from './types';

let runtime: Runtime | null = null;

async function answer(request: AnyRequest): Promise<Candidate[] | null> {
  switch (request.kind) {
    case 'load':
      // Loaded here, since a page that decodes on the server never needs it.
      runtime = await (await import('./runtime')).Runtime.load(request);
      return null;
    case 'prepare':
      await loaded().prepare(request.key, request.embedding);
      return null;
    case 'forget':
      loaded().forget(request.key);
      return null;
    case 'decode': {
      const raw = await loaded().decode(request.key, request.prompts, request.frame);
      return candidatesOf(raw, request.prompts, request.frame);
    }
    case 'masks':
      return candidatesOf(request.raw, request.prompts, request.frame);
  }
}

function loaded(): Runtime {
  if (!runtime) throw new DecoderError('the model is not loaded');
  return runtime;
}

function buffers(candidates: readonly Candidate[]): Transferable[] {
  return candidates.flatMap(({ mask, logits }) => [mask.bits.buffer, logits.buffer]);
}

self.onmessage = ({ data }: MessageEvent<Envelope>): void => {
  answer(data.request).then(
    (value) => {
      const reply: Reply = { id: data.id, value };
      self.postMessage(reply, { transfer: value ? buffers(value) : [] });
    },
    (error: unknown) => {
      const reply: Reply = { id: data.id, error: String(error) };
      self.postMessage(reply);
    },
  );
};
