// Where a decoder's files and embeddings come from: the service, which may still be encoding.

import { ApiError, type Api } from '../api';
import type { DecoderFile, TaskImage } from '../types';
import { DecoderError } from './types';

const PATIENCE_MS = 10 * 60_000;
const TIMEOUT_MS = 120_000;
const SOON_MS = 1000;

export interface Source {
  model(file: DecoderFile): Promise<ArrayBuffer>;
  /** The safetensors body; waits while the image is being encoded. */
  embedding(image: TaskImage): Promise<ArrayBuffer>;
}

/** The service's files; `base` is the folder of the model's files, with a slash at its end. */
export function serviceSource(api: Api, base: string): Source {
  return {
    async model(file) {
      const bytes = await api.bytes(base + file.name, { timeoutMs: TIMEOUT_MS });
      if (bytes.byteLength !== file.bytes)
        throw new DecoderError(
          `${file.name} should have ${file.bytes} bytes; got ${bytes.byteLength}`,
        );
      return bytes;
    },
    async embedding(image) {
      const giveUpAt = Date.now() + PATIENCE_MS;
      for (;;) {
        try {
          return await api.bytes(image.embedding, { timeoutMs: TIMEOUT_MS });
        } catch (error) {
          const busy = error instanceof ApiError && error.status === 503;
          if (!busy || Date.now() > giveUpAt) throw error;
          await new Promise((resolve) => setTimeout(resolve, error.retryAfterMs || SOON_MS));
        }
      }
    },
  };
}
