// Prompts as the decoder's inputs, and which of its four masks answer them.

import { inputScale, type Frame } from '../masks';
import type { DecoderPrompts } from './types';

const PADDING = -1;
const BOX_START = 2;
const BOX_END = 3;
const SINGLE = 0; // the token that answers several prompts
const AMBIGUOUS = [1, 2, 3] as const;

/** K places in pixels of the padded input, x and y in turn, and their K labels. */
export interface EncodedPrompts {
  readonly xy: Float32Array<ArrayBuffer>;
  readonly labels: Float32Array<ArrayBuffer>;
}

/** Points, then the box's corners or, without a box, a padding point. */
export function encodePrompts(prompts: DecoderPrompts, frame: Frame): EncodedPrompts {
  const [scaleX, scaleY] = inputScale(frame);
  const places = prompts.points.map(({ x, y, label }) => [x * scaleX, y * scaleY, label] as const);
  const corners = prompts.box
    ? ([
        [prompts.box[0] * scaleX, prompts.box[1] * scaleY, BOX_START],
        [prompts.box[2] * scaleX, prompts.box[3] * scaleY, BOX_END],
      ] as const)
    : ([[0, 0, PADDING]] as const);
  const all = [...places, ...corners];
  return {
    xy: Float32Array.from(all.flatMap(([x, y]) => [x, y])),
    labels: Float32Array.from(all, ([, , label]) => label),
  };
}

/** The tokens whose masks are offered, in order; see `Answer`. */
export function offeredTokens(iou: ArrayLike<number>, prompts: DecoderPrompts): number[] {
  const ranked = [...AMBIGUOUS].sort((a, b) => iou[b]! - iou[a]!);
  const ambiguous = prompts.points.length === 1 && !prompts.box && !prompts.mask;
  return ambiguous ? ranked : [SINGLE, ...ranked];
}
