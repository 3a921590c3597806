// Mask prompts that no click holds on to get one.

import { expect, test } from 'vitest';
import { anchored } from '../../src/lib/decoder/anchored';
import { contains, frameOf, maskToLogits, strokeMask } from '../../src/lib/masks';

const FRAME = frameOf(400, 300, 512, 32);
const DISC = strokeMask([[150, 120]], 60, 400, 300);
const MASK = maskToLogits(DISC, FRAME);

test('a background click in a mask is joined by a foreground click elsewhere in it', () => {
  const wrong = { x: 140, y: 120, label: 0 } as const;
  const { points, mask } = anchored({ points: [wrong], box: null, mask: MASK }, FRAME);
  const [added, given, ...more] = points;
  expect([given, more, mask]).toEqual([wrong, [], MASK]);
  expect(added!.label).toBe(1);
  expect(contains(DISC, added!.x, added!.y)).toBe(true);
  expect(Math.hypot(added!.x - wrong.x, added!.y - wrong.y)).toBeGreaterThan(20);
});

test('a foreground click beside a mask is joined by one in its middle', () => {
  const missing = { x: 350, y: 280, label: 1 } as const;
  const [added] = anchored({ points: [missing], box: null, mask: MASK }, FRAME).points;
  expect(Math.hypot(added!.x - 150, added!.y - 120)).toBeLessThan(15);
});

test.each([
  ['with a foreground click in the mask', [{ x: 120, y: 100, label: 1 } as const], null, MASK],
  ['with a box', [], [80, 50, 220, 190] as const, MASK],
  ['without a mask', [{ x: 5, y: 5, label: 0 } as const], null, null],
  ['with an empty mask', [], null, MASK.map(() => -1)],
])('prompts %s stay as they are', (_, points, box, mask) => {
  const prompts = { points, box, mask };
  expect(anchored(prompts, FRAME)).toBe(prompts);
});

test('logits above 0 in the padding attract nothing', () => {
  const frame = frameOf(512, 300, 512, 512);
  const mask = new Float32Array(128 * 128).fill(-1);
  mask.fill(5, 100 * 128); // below the image
  const prompts = { points: [], box: null, mask };
  expect(anchored(prompts, frame)).toBe(prompts);
});
