// Undo and redo take back what was done, in the order in which it was done.

import { describe, expect, it } from 'vitest';
import { apply } from '../../src/lib/editor/state';
import type { Action } from '../../src/lib/editor/values';
import { after, answered, answerOf, begin, point, stroke, withSquares } from './helpers';

const UNDO: Action = { type: 'undo' };
const REDO: Action = { type: 'redo' };

describe('undo', () => {
  it('goes back click by click, with the masks that were shown', () => {
    let state = answered(after(begin(), point(12, 12)), answerOf(10, 10, 5));
    state = answered(after(state, point(20, 20)), answerOf(10, 10, 9));
    const once = after(state, UNDO);
    expect(once.doc.current?.mask.area).toBe(25);
    expect(once.doc.current?.prompts).toHaveLength(1);
    expect(after(once, UNDO).doc.current).toBeNull();
    expect(after(once, REDO).doc).toBe(state.doc);
  });

  it('takes back a stroke alone', () => {
    let state = answered(after(begin(), point(12, 12)), answerOf(10, 10, 5));
    state = after(state, stroke('brush', [[50, 50]]));
    expect(after(state, UNDO).doc.current?.mask.area).toBe(25);
  });

  it('takes back a commit: the mask is in progress again', () => {
    const state = withSquares([10, 10, 20]);
    const undone = after(state, UNDO);
    expect(undone.doc.objects).toHaveLength(0);
    expect(undone.doc.current).toMatchObject({ id: 'square-1', changed: true });
  });

  it('takes back deleting, restoring, clearing and the flag', () => {
    const state = withSquares([10, 10, 20], [50, 10, 20]);
    const busy = answered(after(state, point(80, 60, 1, 'c')), answerOf(80, 60, 9));
    for (const [from, action] of [
      [state, { type: 'delete', id: 'square-1' }],
      [after(state, { type: 'delete', id: 'square-1' }), { type: 'restore', id: 'square-1' }],
      [busy, { type: 'clear' }],
      [state, { type: 'exhaustive', value: true }],
    ] as const) {
      const done = after(from, action);
      expect(done.doc).not.toEqual(from.doc);
      expect(after(done, UNDO).doc).toBe(from.doc);
    }
  });

  it('never touches what was only looked at', () => {
    const state = withSquares([10, 10, 20], [50, 10, 20]);
    const looked = after(state, { type: 'select', id: 'square-1' }, { type: 'clear' });
    expect(looked.past).toBe(state.past);
  });

  it('counts trying candidates as one step', () => {
    const state = answered(after(begin(), point(12, 12)), answerOf(10, 10, 5, 8, 3));
    const cycled = after(
      state,
      { type: 'cycle', candidate: 1 },
      { type: 'cycle', candidate: 2 },
      { type: 'cycle', candidate: 1 },
    );
    expect(cycled.doc.current?.mask.area).toBe(64);
    expect(after(cycled, UNDO).doc).toBe(state.doc);
  });

  it('to a click that was never answered asks again', () => {
    const state = after(begin(), point(12, 12), stroke('brush', [[50, 50]]));
    const undone = after(state, UNDO);
    expect(undone.doc.current?.pending?.revision).toBe(1);
    const settled = answered(undone, answerOf(10, 10, 5));
    expect(settled.doc.current?.mask.area).toBe(25);
    expect(after(settled, REDO).doc.current?.pending).toBeNull();
  });

  it('names what it took back, and whose', () => {
    const state = after(withSquares([10, 10, 20]), { type: 'delete', id: 'square-1' });
    const { notice, events } = apply(state, UNDO);
    expect(notice).toBe('Took back: the deletion of mask 1.');
    expect(events).toEqual([{ kind: 'undo', object_id: 'square-1', data: { step: 'delete' } }]);
  });

  it('says so when there is nothing to take back', () => {
    expect(apply(begin(), UNDO)).toMatchObject({ notice: 'Nothing to undo.', events: [] });
    expect(apply(begin(), REDO)).toMatchObject({ notice: 'Nothing to redo.', events: [] });
  });

  it('forgets what was undone as soon as something else is done', () => {
    const state = after(withSquares([10, 10, 20]), UNDO, { type: 'exhaustive', value: true });
    expect(state.future).toHaveLength(0);
  });

  it('keeps masks but no logits of what was done long ago', () => {
    let state = begin();
    for (let i = 0; i < 40; i++)
      state = answered(after(state, point(i, 12)), answerOf(10, 10, 5 + i));
    const answers = state.past.map(({ doc }) => doc.current?.answer?.candidates[0]);
    const kept = answers.filter((candidate) => candidate?.logits);
    expect(kept).toHaveLength(24);
    expect(answers[5]).toMatchObject({ logits: null });
    expect(answers[5]?.mask.area).toBe(81);
  });
});
