// Making, correcting and keeping masks, without a canvas.

import { describe, expect, it } from 'vitest';
import { contains, equal, strokeMask, subtract, union } from '../../src/lib/masks';
import { apply, pendingRequests } from '../../src/lib/editor/state';
import { neighbour, shownObjects } from '../../src/lib/editor/objects';
import {
  after,
  answered,
  answerOf,
  begin,
  emptyAnswer,
  HEIGHT,
  point,
  square,
  stroke,
  WIDTH,
  withSquares,
} from './helpers';

const BOX = { type: 'box', x0: 30, y0: 20, x1: 10, y1: 5, newId: 'a' } as const;

describe('a new mask', () => {
  it('shows its point at once and its mask when the answer is there', () => {
    const asked = after(begin(), point(12, 13));
    expect(asked.doc.current?.prompts).toEqual([{ kind: 'point', x: 12, y: 13, label: 1 }]);
    expect(asked.doc.current?.mask.area).toBe(0);
    const shown = answered(asked, answerOf(10, 10, 5, 8, 3));
    expect(equal(shown.doc.current!.mask, square(10, 10, 5))).toBe(true);
    expect(shown.doc.current?.pending).toBeNull();
    expect(shown.doc.current?.predictedIou).toBeCloseTo(0.9);
  });

  it('is asked for with all points and the last box, sorted and inside the image', () => {
    const state = after(begin(), BOX, { ...BOX, x0: -4, x1: 60 }, point(WIDTH + 9, -3, 0));
    const request = pendingRequests(state.doc)[0];
    expect(request?.prompts).toEqual([
      { kind: 'box', x0: 0, y0: 5, x1: 60, y1: 20 },
      { kind: 'point', x: WIDTH - 0.01, y: 0, label: 0 },
    ]);
  });

  it('tells the next question the logits of the candidate that is shown', () => {
    const first = answered(after(begin(), point(12, 12)), answerOf(10, 10, 5, 8, 3));
    const next = after(first, { type: 'cycle', candidate: 1 }, point(17, 17));
    expect(next.doc.current?.pending?.seed).toEqual({
      kind: 'logits',
      logits: new Float32Array([8]),
    });
  });

  it('tells the next question the mask itself once it was painted', () => {
    const first = answered(after(begin(), point(12, 12)), answerOf(10, 10, 5));
    const next = after(first, stroke('brush', [[30, 30]]), point(40, 40));
    const seed = next.doc.current?.pending?.seed;
    expect(seed?.kind === 'mask' && contains(seed.mask, 30, 30)).toBe(true);
  });

  it('can be painted without any decoder', () => {
    const state = after(
      begin(),
      stroke('brush', [
        [20, 20],
        [40, 20],
      ]),
      { type: 'commit' },
    );
    const object = state.doc.objects[0]!;
    expect(
      equal(
        object.mask,
        strokeMask(
          [
            [20, 20],
            [40, 20],
          ],
          3,
          WIDTH,
          HEIGHT,
        ),
      ),
    ).toBe(true);
    expect(object.predictedIou).toBeNull();
    expect(object.made).toBe('new');
  });

  it('is not kept while it is empty, and the person is told why', () => {
    const state = answered(after(begin(), point(5, 5)), emptyAnswer());
    const { state: same, notice } = apply(state, { type: 'commit' });
    expect(same.doc.objects).toHaveLength(0);
    expect(notice).toMatch(/no mask to keep/);
  });

  it('gets its answer even when it was kept before the answer came', () => {
    const kept = after(begin(), point(12, 12), { type: 'commit' }, point(52, 52, 1, 'b'));
    expect(kept.doc.objects[0]?.pending?.revision).toBe(1);
    const state = after(kept, {
      type: 'answered',
      revision: 1,
      answer: answerOf(10, 10, 6),
      decoder: 'server',
    });
    expect(state.doc.objects[0]?.mask.area).toBe(36);
    expect(state.doc.objects[0]?.decoder).toBe('server');
    expect(state.doc.current?.id).toBe('b');
    expect(state.doc.current?.pending?.revision).toBe(2);
  });

  it('goes when it was kept early and the model then found nothing', () => {
    const kept = after(begin(), point(12, 12), { type: 'commit' });
    const outcome = apply(kept, {
      type: 'answered',
      revision: 1,
      answer: emptyAnswer(),
      decoder: 'browser',
    });
    expect(outcome.state.doc.objects).toHaveLength(0);
    expect(outcome.notice).toMatch(/found nothing/);
  });

  it('takes the answer that the hover preview already had', () => {
    const state = after(begin(), {
      type: 'point',
      x: 12,
      y: 12,
      label: 1,
      newId: 'a',
      answer: answerOf(10, 10, 7),
      decoder: 'browser',
    });
    expect(state.doc.current?.mask.area).toBe(49);
    expect(pendingRequests(state.doc)).toHaveLength(0);
  });
});

describe('strokes over answers', () => {
  it('stay when a later click brings a new answer', () => {
    let state = answered(after(begin(), point(12, 12)), answerOf(10, 10, 20));
    state = after(state, stroke('eraser', [[15, 15]]), stroke('brush', [[60, 60]]), point(25, 25));
    state = answered(state, answerOf(10, 10, 22));
    const erased = strokeMask([[15, 15]], 3, WIDTH, HEIGHT);
    const painted = strokeMask([[60, 60]], 3, WIDTH, HEIGHT);
    const wanted = union(subtract(square(10, 10, 22), erased), painted);
    expect(equal(state.doc.current!.mask, wanted)).toBe(true);
  });

  it('give way to a later click inside them that says the opposite', () => {
    let state = answered(after(begin(), point(12, 12)), answerOf(10, 10, 20));
    state = after(
      state,
      stroke('brush', [
        [60, 60],
        [70, 60],
      ]),
      point(65, 61, 0),
    );
    state = answered(state, answerOf(10, 10, 20));
    expect(equal(state.doc.current!.mask, square(10, 10, 20))).toBe(true);
  });

  it('made while the model thinks are laid over its answer', () => {
    const state = after(begin(), point(12, 12), stroke('brush', [[60, 60]]));
    const shown = answered(state, answerOf(10, 10, 5));
    expect(contains(shown.doc.current!.mask, 60, 60)).toBe(true);
    expect(contains(shown.doc.current!.mask, 12, 12)).toBe(true);
  });
});

describe('answers', () => {
  it('to an earlier click are shown while the later one is on its way', () => {
    const state = after(begin(), point(12, 12), point(20, 20));
    const answer = answerOf(10, 10, 5);
    const next = after(state, { type: 'answered', revision: 1, answer, decoder: 'browser' });
    expect(next.doc.current?.mask.area).toBe(25);
    expect(next.doc.current?.pending?.revision).toBe(2);
    expect(next.doc.current?.pending?.seed).toEqual({
      kind: 'logits',
      logits: answer.candidates[0]!.logits,
    });
  });

  it('that come after a newer one change nothing on screen', () => {
    let state = after(begin(), point(12, 12), point(20, 20));
    state = answered(state, answerOf(10, 10, 12));
    const late = after(state, {
      type: 'answered',
      revision: 1,
      answer: answerOf(10, 10, 5),
      decoder: 'browser',
    });
    expect(late.doc).toBe(state.doc);
  });

  it('to something that was cleared do not come back', () => {
    const cleared = after(begin(), point(12, 12), { type: 'clear' });
    const late = after(cleared, {
      type: 'answered',
      revision: 1,
      answer: answerOf(10, 10, 5),
      decoder: 'browser',
    });
    expect(late.doc.current).toBeNull();
    expect(after(late, { type: 'undo' }).doc.current?.mask.area).toBe(25);
  });
});

describe('correcting', () => {
  const squares = withSquares([10, 10, 20], [50, 10, 20]);

  it('starts with a right click on a mask when nothing is in progress', () => {
    const state = after(squares, point(15, 15, 0, 'unused'));
    expect(state.doc.current?.id).toBe('square-1');
    expect(state.doc.current?.pending?.seed?.kind).toBe('mask');
    expect(shownObjects(state.doc).map(({ id }) => id)).toEqual(['square-2']);
  });

  it('says so when there is nothing to take away from', () => {
    const { state, notice } = apply(squares, point(90, 70, 0, 'unused'));
    expect(state).toBe(squares);
    expect(notice).toMatch(/no mask here/);
  });

  it('starts with the eraser on a mask, and never makes a new one', () => {
    const state = after(squares, stroke('eraser', [[15, 15]]));
    expect(state.doc.current?.id).toBe('square-1');
    expect(contains(state.doc.current!.mask, 15, 15)).toBe(false);
    expect(after(squares, stroke('eraser', [[90, 70]])).doc.current).toBeNull();
  });

  it('puts the mask back in its place with its number and colour', () => {
    const before = squares.doc.objects[0]!;
    let state = after(squares, { type: 'select', id: 'square-1' }, point(40, 40));
    state = after(answered(state, answerOf(10, 10, 30)), { type: 'commit' });
    expect(state.doc.objects.map(({ id }) => id)).toEqual(['square-1', 'square-2']);
    expect(state.doc.objects[0]).toMatchObject({ number: before.number, colour: before.colour });
    expect(state.doc.objects[0]?.mask.area).toBe(900);
  });

  it('that was cleared leaves the mask as it was', () => {
    const state = after(squares, point(15, 15, 0), { type: 'clear' });
    expect(state.doc.objects).toBe(squares.doc.objects);
  });

  it('takes the smallest mask at a place, and the one around it the second time', () => {
    const nested = withSquares([10, 10, 40], [20, 20, 10]);
    const first = after(nested, { type: 'take', x: 25, y: 25 });
    expect(first.doc.current?.id).toBe('square-2');
    const second = after(first, { type: 'take', x: 25, y: 25 });
    expect(second.doc.current?.id).toBe('square-1');
  });

  it('of another mask keeps what was in progress', () => {
    const drawing = answered(after(squares, point(80, 60, 1, 'c')), answerOf(80, 60, 9));
    const { state, events } = apply(drawing, { type: 'select', id: 'square-1' });
    expect(state.doc.objects.map(({ id }) => id)).toEqual(['square-1', 'square-2', 'c']);
    expect(events.map(({ kind }) => kind)).toEqual(['commit', 'select']);
  });

  it('goes through the masks in their order and stops at the ends', () => {
    const first = after(squares, { type: 'select', id: neighbour(squares, 1)!.id });
    expect(first.doc.current?.id).toBe('square-1');
    expect(neighbour(first, -1)).toBeNull();
    expect(neighbour(first, 1)?.id).toBe('square-2');
  });

  it('is no change as long as nothing was changed', () => {
    const held = after(squares, { type: 'select', id: 'square-1' });
    const { state, events } = apply(held, { type: 'commit' });
    expect(events).toEqual([]);
    expect(state.doc.objects).toBe(squares.doc.objects);
    expect(state.past).toBe(squares.past);
  });
});

describe('deleting', () => {
  const squares = withSquares([10, 10, 20], [50, 10, 20], [10, 50, 20]);

  it('and restoring puts a mask back where it was', () => {
    const deleted = after(squares, { type: 'delete', id: 'square-2' });
    expect(deleted.doc.objects.map(({ number }) => number)).toEqual([1, 3]);
    const restored = after(deleted, { type: 'restore', id: 'square-2' });
    expect(restored.doc.objects).toEqual(squares.doc.objects);
    expect(restored.doc.deleted).toHaveLength(0);
  });

  it('without a name deletes the mask in hand', () => {
    const held = after(squares, { type: 'select', id: 'square-3' }, { type: 'delete', id: null });
    expect(held.doc.current).toBeNull();
    expect(held.doc.deleted.map(({ id }) => id)).toEqual(['square-3']);
  });

  it('never gives a number twice', () => {
    let state = after(squares, { type: 'delete', id: 'square-3' }, point(70, 60, 1, 'd'));
    state = after(answered(state, answerOf(70, 60, 5)), { type: 'commit' });
    expect(state.doc.objects.at(-1)?.number).toBe(4);
  });
});

describe('modes', () => {
  it('in a review a left click takes a mask and begins no new one', () => {
    const squares = { ...withSquares([10, 10, 20]), mode: 'review' as const };
    expect(after(squares, point(15, 15)).doc.current).toMatchObject({
      id: 'square-1',
      changed: false,
    });
    const { state, notice } = apply(squares, point(80, 60));
    expect(state).toBe(squares);
    expect(notice).toMatch(/corrected, not added/);
  });

  it('readonly lets masks be looked at only', () => {
    const squares = { ...withSquares([10, 10, 20]), mode: 'readonly' as const };
    expect(after(squares, point(15, 15))).toBe(squares);
    expect(after(squares, { type: 'delete', id: 'square-1' })).toBe(squares);
    expect(after(squares, { type: 'select', id: 'square-1' }).doc.current?.id).toBe('square-1');
  });
});

describe('the log', () => {
  it('has a line for everything that was done, with what it was done to', () => {
    const asked = apply(begin(), point(12.3456, 12));
    expect(asked.events).toEqual([
      { kind: 'click', object_id: 'a', data: { x: 12.35, y: 12, label: 1 } },
    ]);
    const state = answered(asked.state, answerOf(10, 10, 5));
    const [commit] = apply(state, { type: 'commit' }).events;
    expect(commit).toMatchObject({
      kind: 'commit',
      object_id: 'a',
      data: { area: 25, made: 'new' },
    });
    expect(apply(state, { type: 'exhaustive', value: true }).events).toEqual([
      { kind: 'exhaustive', object_id: null, data: { value: true } },
    ]);
  });
});
