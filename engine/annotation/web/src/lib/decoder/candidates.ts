// From what the decoder computes to the masks that a person chooses from.

import { lowResSize, type Frame } from '../masks';
import { offeredTokens } from './prompts';
import { DecoderError, type Candidate, type DecoderPrompts } from './types';
import { maskOfLogits } from './upsample';

/** What a decoder puts out: four predicted IoUs, and four maps of low-resolution logits in a row. */
export interface RawAnswer {
  readonly iou: Float32Array;
  readonly logits: Float32Array;
}

/** The masks on offer, in order; their logits are copies that may be sent away. */
export function candidatesOf(raw: RawAnswer, prompts: DecoderPrompts, frame: Frame): Candidate[] {
  const [height, width] = lowResSize(frame);
  const pixels = height * width;
  if (raw.iou.length !== 4 || raw.logits.length !== 4 * pixels)
    throw new DecoderError(
      `4 IoUs and 4x${height}x${width} logits expected; got ${raw.iou.length} and ${raw.logits.length}`,
    );
  return offeredTokens(raw.iou, prompts).map((token) => {
    const logits = raw.logits.slice(token * pixels, (token + 1) * pixels);
    return { mask: maskOfLogits(logits, frame), iou: raw.iou[token]!, logits };
  });
}
