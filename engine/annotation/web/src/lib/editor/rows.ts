// The list of objects as rows of one height, of which only those in view exist in the document.

import type { EditorObject } from './values';

export type Row =
  | { readonly kind: 'object'; readonly object: EditorObject; readonly deleted: boolean }
  | { readonly kind: 'heading'; readonly text: string };

export interface Slice {
  readonly first: number;
  readonly last: number;
}

export function rowsOf(
  objects: readonly EditorObject[],
  deleted: readonly EditorObject[],
): readonly Row[] {
  const rows: Row[] = objects.map((object) => ({ kind: 'object', object, deleted: false }));
  if (deleted.length > 0) rows.push({ kind: 'heading', text: `Deleted (${deleted.length})` });
  for (const object of deleted) rows.push({ kind: 'object', object, deleted: true });
  return rows;
}

/** Rows that a scrolled list shows, and a few more on either side. */
export function sliceOf(count: number, rowPx: number, scrollTop: number, heightPx: number): Slice {
  const beyond = 6;
  const first = Math.max(0, Math.floor(scrollTop / rowPx) - beyond);
  const last = Math.min(count, Math.ceil((scrollTop + heightPx) / rowPx) + beyond);
  return { first: Math.min(first, last), last };
}

/** Where to scroll so that a row is in view; null when it is. */
export function scrollTo(
  index: number,
  rowPx: number,
  scrollTop: number,
  heightPx: number,
): number | null {
  const top = index * rowPx;
  if (top < scrollTop) return top;
  if (top + rowPx > scrollTop + heightPx) return top + rowPx - heightPx;
  return null;
}

/** "412 px", "38.4k px", "1.2M px". */
export function areaText(area: number): string {
  if (area < 1000) return `${area} px`;
  if (area < 999_950) return `${(area / 1000).toFixed(area < 9950 ? 1 : 0)}k px`;
  return `${(area / 1e6).toFixed(1)}M px`;
}
