// How an image is laid into the model's input (model/preprocess.py): long side resized, then padded
// right and below. Sizes are [height, width].

export type Size = readonly [height: number, width: number];

export interface Frame {
  readonly original: Size;
  readonly input: Size;
  readonly padded: Size;
}

/** Logits lie at a quarter of the padded input. */
export const LOW_RES_STRIDE = 4;

/** Lay an image of width x height into an input of `imageSize`, padded to `padMultiple`. */
export function frameOf(
  width: number,
  height: number,
  imageSize: number,
  padMultiple: number,
): Frame {
  const scale = imageSize / Math.max(height, width);
  const resized = (side: number): number => Math.max(1, Math.floor(side * scale + 0.5));
  const padded = (side: number): number => Math.ceil(side / padMultiple) * padMultiple;
  const input: Size = [resized(height), resized(width)];
  return { original: [height, width], input, padded: [padded(input[0]), padded(input[1])] };
}

/** [height, width] of the logits. */
export function lowResSize(frame: Frame): Size {
  return [frame.padded[0] / LOW_RES_STRIDE, frame.padded[1] / LOW_RES_STRIDE];
}

/** How many input pixels an original pixel measures, as [x, y]. */
export function inputScale(frame: Frame): readonly [x: number, y: number] {
  return [frame.input[1] / frame.original[1], frame.input[0] / frame.original[0]];
}
