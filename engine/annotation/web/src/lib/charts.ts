// Geometry of the small charts: round numbers for axes, bars of a histogram, points of a line.

import type { Histogram } from './types';

/** At most `count` + 1 round numbers from 0 up to at least `most`; for counts whole ones. */
export function roundTicks(most: number, count = 4, whole = false): number[] {
  if (!(most > 0)) return [0, 1];
  const raw = Math.max(most / count, whole ? 1 : 0);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10]
    .map((factor) => factor * power)
    .filter((one) => !whole || Number.isInteger(one))
    .find((one) => one >= raw - 1e-12)!;
  const ticks: number[] = [];
  for (let i = 0; ; i++) {
    const tick = Number((i * step).toPrecision(12));
    ticks.push(tick);
    if (tick >= most) return ticks;
  }
}

export interface Bar {
  /** All in shares of the plot, from its top left. */
  x: number;
  y: number;
  width: number;
  height: number;
  count: number;
  label: string;
}

/** Bars of equal width, whatever the edges are: the labels say what they hold. */
export function histogramBars({ edges, counts }: Histogram, unit: string, whole = false): Bar[] {
  const top = roundTicks(Math.max(...counts, 0), 3, true).at(-1)!;
  return counts.map((count, i) => ({
    x: i / counts.length,
    width: 1 / counts.length,
    y: 1 - count / top,
    height: count / top,
    count,
    label: `${rangeLabel(edges[i]!, edges[i + 1]!, whole, overflows(edges, i))}${unit}: ${count}`,
  }));
}

export interface AxisLabel {
  /** Share of the plot's width. */
  x: number;
  text: string;
}

/** Labels below a histogram: at the edges, or for whole numbers in the middle of their bar. */
export function histogramLabels({ edges, counts }: Histogram, whole = false): AxisLabel[] {
  const labels: AxisLabel[] = [];
  for (let i = 0; i < counts.length; i++) {
    const text = short(edges[i]!) + (overflows(edges, i) ? '+' : '');
    labels.push({ x: (i + (whole ? 0.5 : 0)) / counts.length, text });
  }
  if (!whole && !overflows(edges, counts.length - 1))
    labels.push({ x: 1, text: short(edges.at(-1)!) });
  return labels;
}

/** Where a value lies on the axis of a histogram; null when it lies outside. */
export function histogramPosition(
  { edges, counts }: Histogram,
  value: number,
  whole = false,
): number | null {
  for (let i = 0; i < counts.length; i++) {
    const from = edges[i]!;
    const to = edges[i + 1]!;
    if (value < from || value >= to) continue;
    const share = (value - from) / (to - from);
    const middle = whole || overflows(edges, i);
    return (i + (middle ? 0.5 : share)) / counts.length;
  }
  return null;
}

/** The last bar takes the rest: it is wider than the one before it. */
function overflows(edges: number[], i: number): boolean {
  if (i !== edges.length - 2) return false;
  const width = edges[i + 1]! - edges[i]!;
  return !Number.isFinite(width) || (i > 0 && width > edges[i]! - edges[i - 1]!);
}

function rangeLabel(from: number, to: number, whole: boolean, last: boolean): string {
  if (last) return `${short(from)} and more`;
  if (whole && to - from === 1) return short(from);
  return whole ? `${short(from)} to ${short(to - 1)}` : `${short(from)} to ${short(to)}`;
}

/** 12.5 -> "12.5", 3 -> "3" */
export function short(value: number | undefined | null): string {
  return value === undefined || value === null ? '' : String(Number(value.toFixed(2)));
}

/** An SVG path through points of the plot; a value that is missing breaks the line. */
export function linePath(
  values: (number | null)[],
  top: number,
  width: number,
  height: number,
): string {
  let path = '';
  let drawing = false;
  values.forEach((value, i) => {
    if (value === null) {
      drawing = false;
      return;
    }
    const x = values.length === 1 ? width / 2 : (i * width) / (values.length - 1);
    const y = height - (value / top) * height;
    path += `${drawing ? 'L' : 'M'}${x.toFixed(1)} ${y.toFixed(1)}`;
    drawing = true;
  });
  return path;
}

/** Shares of a total that are worth drawing; empty when there is nothing. */
export function shares<K extends string>(values: Record<K, number>): { key: K; share: number }[] {
  const keys = Object.keys(values) as K[];
  const total = keys.reduce((sum, key) => sum + values[key], 0);
  return total ? keys.map((key) => ({ key, share: values[key] / total })) : [];
}
