// Which masks lie under a point: the smallest first, because a part lies inside its whole.

import { contains } from '../masks';
import type { EditorObject } from './values';

/** Objects whose mask holds the image point, the smallest first. */
export function objectsAt(
  objects: readonly EditorObject[],
  x: number,
  y: number,
): readonly EditorObject[] {
  const found = objects.filter((object) => contains(object.mask, x, y));
  return found.sort((a, b) => a.mask.area - b.mask.area || b.number - a.number);
}

/** The smallest object at the point; the next larger one when `held` is already the one in hand. */
export function takenAt(
  objects: readonly EditorObject[],
  x: number,
  y: number,
  held: string | null,
): EditorObject | null {
  const found = objectsAt(objects, x, y);
  if (found.length === 0) return null;
  const at = found.findIndex((object) => object.id === held);
  return found[(at + 1) % found.length] ?? null;
}
