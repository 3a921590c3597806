// What the editor asks of a decoder, wherever it runs.

import type { Frame, Mask } from '../masks';
import type { DecoderKind, TaskImage } from '../types';

export interface PromptPoint {
  readonly x: number;
  readonly y: number;
  /** 1: belongs to the object, 0: does not. */
  readonly label: 0 | 1;
}

/** What a person gave so far, in pixels of the original image. */
export interface DecoderPrompts {
  readonly points: readonly PromptPoint[];
  readonly box: readonly [x0: number, y0: number, x1: number, y1: number] | null;
  /** Low-resolution logits of the answer to go on from, or of any mask (`maskToLogits`). */
  readonly mask: Float32Array | null;
}

export interface Candidate {
  readonly mask: Mask;
  readonly iou: number;
  /** Low-resolution logits, h * w: the mask prompt of the next click. */
  readonly logits: Float32Array;
}

/**
 * The masks to choose from. One point alone is ambiguous: three masks, the best predicted IoU first.
 * Anything more has one answer, which comes first, and the three as alternatives after it.
 */
export interface Answer {
  readonly candidates: readonly Candidate[];
  /** Which candidate to show first. */
  readonly best: number;
  /** From the request to the masks. */
  readonly milliseconds: number;
}

/** What a decoder needs to know of a task. */
export interface DecoderTask {
  readonly id: string;
  readonly image: TaskImage;
}

/** An image that a decoder is ready to answer about; belongs to the decoder that made it. */
export interface Prepared {
  readonly task: DecoderTask;
  readonly frame: Frame;
}

export interface Decoder {
  readonly kind: DecoderKind;
  /** Threads that compute; 0 when they are not this machine's. */
  readonly threads: number;
  prepare(task: DecoderTask): Promise<Prepared>;
  /** Answer a click: in order, never dropped. */
  decode(prepared: Prepared, prompts: DecoderPrompts): Promise<Answer>;
  /** Answer for the place under the cursor, or null when something newer took its place. */
  preview(prepared: Prepared, prompts: DecoderPrompts): Promise<Answer | null>;
  /** Make ready for an image that comes soon, when nothing else is to be done. */
  prefetch(image: TaskImage): Promise<void>;
  dispose(): void;
}

/** A decoder that cannot answer, and why. */
export class DecoderError extends Error {
  override readonly name = 'DecoderError';
}
