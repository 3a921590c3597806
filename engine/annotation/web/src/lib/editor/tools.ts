// The three tools: prompting, which needs no tool, and brush and eraser, whose key is held for a stroke
// or two or tapped to stay. Brush sizes are screen pixels: zooming in paints finer.

import type { Tool } from './pointer';

export interface ToolState {
  readonly tool: Tool;
  /** Where to go back to when the held key comes up; null when none is held. */
  readonly held: { readonly before: Tool; readonly since: number; readonly used: boolean } | null;
  /** Radius in CSS pixels. */
  readonly radius: number;
}

export const FIRST_TOOL: ToolState = { tool: 'prompt', held: null, radius: 14 };

export const LEAST_RADIUS = 1;
export const MOST_RADIUS = 160;
/** A key that was down for less is a tap. */
const TAP_MS = 280;

export function toolDown(state: ToolState, tool: 'brush' | 'eraser', t: number): ToolState {
  if (state.held) return state; // the key repeats
  return { ...state, tool, held: { before: state.tool, since: t, used: false } };
}

/** A tap on the tool that was already on puts it away. */
export function toolUp(state: ToolState, tool: 'brush' | 'eraser', t: number): ToolState {
  const { held } = state;
  if (!held || state.tool !== tool) return { ...state, held: null };
  const tap = t - held.since < TAP_MS && !held.used;
  if (!tap) return { ...state, tool: held.before, held: null };
  return { ...state, tool: held.before === tool ? 'prompt' : tool, held: null };
}

/** A stroke was made: the key, if it is down, was held and not tapped. */
export function toolUsed(state: ToolState): ToolState {
  return state.held && !state.held.used ? { ...state, held: { ...state.held, used: true } } : state;
}

/** From the toolbar: choosing the tool that is on puts it away. */
export function toolChosen(state: ToolState, tool: Tool): ToolState {
  return { ...state, tool: state.tool === tool ? 'prompt' : tool, held: null };
}

export function resizedBrush(state: ToolState, factor: number): ToolState {
  const wanted = state.radius * factor;
  // At least a pixel per step, so that small brushes do not stick.
  const step = factor > 1 ? Math.max(wanted, state.radius + 1) : Math.min(wanted, state.radius - 1);
  const smooth = Math.abs(factor - 1) < 0.12 ? wanted : step;
  return { ...state, radius: Math.min(Math.max(smooth, LEAST_RADIUS), MOST_RADIUS) };
}

/** Drop points that a brush of this radius does not need, and round to hundredths of a pixel. */
export function thinned(
  points: readonly (readonly [number, number])[],
  radius: number,
): [number, number][] {
  const apart = Math.max(0.5, radius * 0.12);
  const kept: [number, number][] = [];
  points.forEach(([x, y], at) => {
    const last = kept.at(-1);
    const isEnd = at === points.length - 1;
    if (last && Math.hypot(x - last[0], y - last[1]) < (isEnd ? 0.01 : apart)) return;
    kept.push([Math.round(x * 100) / 100, Math.round(y * 100) / 100]);
  });
  return kept;
}
