// Masks of the page: windows of bits, COCO RLE, strokes, outlines and mask prompts.
//
//   const mask = union(fromRle(object.rle), strokeMask([[10, 10], [40, 12]], 6, width, height));
//   object.rle = toRle(mask);                          // the bytes that pycocotools writes
//   context.stroke(outlinePath(outline(mask)));

export type { Mask, Outline, Region, Rle } from './types';
export { MaskError } from './types';
export type { Frame, Size } from './frame';
export { LOW_RES_STRIDE, frameOf, inputScale, lowResSize } from './frame';
export {
  contains,
  emptyMask,
  equal,
  intersect,
  iou,
  maskOfBits,
  subtract,
  tighten,
  union,
} from './mask';
export { fromRle, toRle } from './rle';
export { strokeMask, type StrokePoint } from './stroke';
export { outline, outlinePath } from './outline';
export { maskToLogits } from './logits';
export { anchorOf } from './anchor';
