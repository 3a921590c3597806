// Axes end in round numbers, bars fill their plot, numbers read like numbers.

import { expect, it } from 'vitest';
import {
  histogramBars,
  histogramLabels,
  histogramPosition,
  linePath,
  roundTicks,
  shares,
} from '../src/lib/charts';
import { ago, decimal, percent, plural, seconds } from '../src/lib/format';

it.each([
  [0, [0, 1]],
  [1, [0, 0.25, 0.5, 0.75, 1]],
  [7, [0, 2, 4, 6, 8]],
  [100, [0, 25, 50, 75, 100]],
  [1234, [0, 500, 1000, 1500]],
])('an axis up to %f has the ticks %j', (most, ticks) => {
  expect(roundTicks(most)).toEqual(ticks);
});

it('counts have whole ticks', () => {
  expect(roundTicks(3, 3, true)).toEqual([0, 1, 2, 3]);
  expect(roundTicks(7, 3, true)).toEqual([0, 5, 10]);
  expect(roundTicks(1, 3, true)).toEqual([0, 1]);
});

it('bars are as high as their counts, and the last one takes the rest', () => {
  const histogram = { edges: [0, 5, 10, 60], counts: [4, 0, 2] };
  const bars = histogramBars(histogram, ' s');
  expect(bars.map(({ height }) => height)).toEqual([1, 0, 0.5]);
  expect(bars.map(({ label }) => label)).toEqual([
    '0 to 5 s: 4',
    '5 to 10 s: 0',
    '10 and more s: 2',
  ]);
  expect(bars.at(-1)!.x + bars.at(-1)!.width).toBeCloseTo(1);
  expect(histogramLabels(histogram).map(({ text }) => text)).toEqual(['0', '5', '10+']);
  expect(histogramPosition(histogram, 2.5)).toBeCloseTo(1 / 6);
  expect(histogramPosition(histogram, 50)).toBeCloseTo(5 / 6);
  expect(histogramPosition(histogram, 70)).toBeNull();
});

it('whole numbers stand below the middle of their bar', () => {
  const histogram = { edges: [0, 1, 2, 3], counts: [1, 2, 0] };
  expect(histogramBars(histogram, ' clicks', true)[1]!.label).toBe('1 clicks: 2');
  expect(histogramLabels(histogram, true)[1]).toEqual({ x: 0.5, text: '1' });
  expect(histogramPosition(histogram, 1, true)).toBe(0.5);
});

it('a line breaks where a day has no value', () => {
  expect(linePath([0, 10, null, 5], 10, 30, 10)).toBe('M0.0 10.0L10.0 0.0M30.0 5.0');
});

it('shares of nothing are nothing', () => {
  expect(shares({ a: 0, b: 0 })).toEqual([]);
  expect(shares({ a: 1, b: 3 })).toEqual([
    { key: 'a', share: 0.25 },
    { key: 'b', share: 0.75 },
  ]);
});

it('numbers are written for people', () => {
  expect([3.24, 14.4, 150, 7300, null].map(seconds)).toEqual([
    '3.2 s',
    '14 s',
    '3 min',
    '2.0 h',
    '–',
  ]);
  expect(percent(0.456)).toBe('46 %');
  expect(decimal(null)).toBe('–');
  expect([plural(1, 'mask'), plural(1234, 'mask')]).toEqual(['1 mask', '1,234 masks']);
  const now = Date.parse('2026-11-21T12:00:00Z');
  expect(ago('2026-11-21T11:59:30Z', now)).toBe('just now');
  expect(ago('2026-11-21T09:00:00Z', now)).toBe('3 hours ago');
  expect(ago('2026-11-01T09:00:00Z', now)).toBe('2026-11-01');
});
