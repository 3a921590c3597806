// The values of this folder: a mask as a window of its image, its RLE, its outline.

/** Bits of a window of an image; everything outside the window is background. Never changed in place. */
export interface Mask {
  /** Size of the whole image in pixels. */
  readonly width: number;
  readonly height: number;
  /** The window: its first pixel and its size; 0 x 0 when the mask is empty. */
  readonly x0: number;
  readonly y0: number;
  readonly w: number;
  readonly h: number;
  /** w * h values of 0 or 1, row by row. */
  readonly bits: Uint8Array;
  /** How many bits are set. */
  readonly area: number;
}

/** COCO's compressed run lengths: column by column, starting with background. */
export interface Rle {
  size: [height: number, width: number];
  counts: string;
}

/** A rectangle of the image; ends excluded. */
export interface Region {
  readonly x0: number;
  readonly y0: number;
  readonly x1: number;
  readonly y1: number;
}

/** Closed border lines between pixels: each loop is x, y, x, y ... of its corners. */
export type Outline = readonly Int32Array[];

/** Input that this folder cannot make sense of. */
export class MaskError extends Error {
  override readonly name = 'MaskError';
}
