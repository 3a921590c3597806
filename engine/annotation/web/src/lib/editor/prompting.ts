// How prompts, answers and strokes make one mask: strokes are laid over the decoder's answer in their
// order, so that what was painted stays painted, until a later click inside a stroke says otherwise.

import { emptyMask, strokeMask, subtract, union, type Mask } from '../masks';
import type { Prompt } from '../types';
import type { Current, DecodeAnswer, DecodeRequest, Seed } from './values';

type Stroke = Extract<Prompt, { kind: 'stroke' }>;

/** What a decoder is asked: all points, the last box. */
export interface AskedPrompts {
  readonly points: { x: number; y: number; label: 0 | 1 }[];
  readonly box: [number, number, number, number] | null;
}

export function askedPrompts(prompts: readonly Prompt[]): AskedPrompts {
  const points: AskedPrompts['points'] = [];
  let box: AskedPrompts['box'] = null;
  for (const prompt of prompts) {
    if (prompt.kind === 'point') points.push({ x: prompt.x, y: prompt.y, label: prompt.label });
    if (prompt.kind === 'box') box = [prompt.x0, prompt.y0, prompt.x1, prompt.y1];
  }
  return { points, box };
}

/** Add a prompt; a new box takes the place of the one before. */
export function withPrompt(prompts: readonly Prompt[], added: Prompt): readonly Prompt[] {
  const kept = added.kind === 'box' ? prompts.filter(({ kind }) => kind !== 'box') : prompts;
  return [...kept, added];
}

/** The mask with one stroke more. */
export function painted(mask: Mask, stroke: Stroke): Mask {
  const drawn = strokeMask(stroke.points, stroke.radius, mask.width, mask.height);
  return stroke.mode === 'brush' ? union(mask, drawn) : subtract(mask, drawn);
}

/** A candidate with the strokes over it that still count. */
export function composed(answer: DecodeAnswer, chosen: number, prompts: readonly Prompt[]): Mask {
  const candidate = answer.candidates[chosen];
  if (!candidate) throw new RangeError(`no candidate ${chosen} of ${answer.candidates.length}`);
  return strokesInForce(prompts).reduce(painted, candidate.mask);
}

/** Strokes without those that a later click contradicts: background on paint, foreground on erased. */
export function strokesInForce(prompts: readonly Prompt[]): readonly Stroke[] {
  const strokes: Stroke[] = [];
  prompts.forEach((prompt, at) => {
    if (prompt.kind !== 'stroke') return;
    const against = prompt.mode === 'brush' ? 0 : 1;
    const undone = prompts
      .slice(at + 1)
      .some((later) => later.kind === 'point' && later.label === against && covers(prompt, later));
    if (!undone) strokes.push(prompt);
  });
  return strokes;
}

/** What the next question tells about the mask so far. */
export function seedOf(current: Current): Seed | null {
  if (current.mask.area === 0) return null;
  const logits = current.answer?.candidates[current.chosen]?.logits;
  // Logits speak for the answer alone: after a stroke the mask itself is the better witness.
  if (logits && strokesInForce(current.prompts).length === 0) return { kind: 'logits', logits };
  return { kind: 'mask', mask: current.mask };
}

/** Whether `request` was asked on the way to these prompts. */
export function leadsTo(request: DecodeRequest, prompts: readonly Prompt[]): boolean {
  return request.prompts.every((prompt, at) => prompts[at] === prompt);
}

/** Coordinates as they are kept: hundredths of a pixel, inside the image. */
export function snapped(value: number, length: number): number {
  return Math.round(Math.min(Math.max(value, 0), length - 0.01) * 100) / 100;
}

export function noMask(width: number, height: number): Mask {
  return emptyMask(width, height);
}

function covers(stroke: Stroke, point: { x: number; y: number }): boolean {
  const { points, radius } = stroke;
  return points.some((end, i) => {
    const start = points[Math.max(0, i - 1)]!;
    return distanceToSegment(point, start, end) <= radius;
  });
}

function distanceToSegment(
  { x, y }: { x: number; y: number },
  a: readonly [number, number],
  b: readonly [number, number],
): number {
  const [dx, dy] = [b[0] - a[0], b[1] - a[1]];
  const squared = dx * dx + dy * dy;
  const along = squared === 0 ? 0 : ((x - a[0]) * dx + (y - a[1]) * dy) / squared;
  const t = Math.min(1, Math.max(0, along));
  return Math.hypot(x - a[0] - t * dx, y - a[1] - t * dy);
}
