// Drafts: what is sent is what was made, and what comes back is where one left off.

import { describe, expect, it } from 'vitest';
import { equal, fromRle } from '../../src/lib/masks';
import { openTask, toDraft } from '../../src/lib/editor/draft';
import { isToCheck, neighbour } from '../../src/lib/editor/objects';
import { pendingRequests } from '../../src/lib/editor/state';
import { after, answered, answerOf, obj, point, square, stroke, taskOf } from './helpers';

const task = taskOf(obj('p1', square(10, 10, 20)), obj('p2', square(50, 10, 20)));

describe('opening a task', () => {
  it('without a draft shows what the model pre-filled', () => {
    const { doc } = openTask(task, null, 'annotate');
    expect(doc.objects.map(({ id, number, made }) => [id, number, made])).toEqual([
      ['p1', 1, 'kept'],
      ['p2', 2, 'kept'],
    ]);
  });

  it('refuses masks of another size', () => {
    const foreign = taskOf({ ...obj('p', square(0, 0, 5)), rle: { size: [5, 5], counts: '0I' } });
    expect(() => openTask(foreign, null, 'annotate')).toThrow(/100x80 expected; got one of 5x5/);
  });

  it('with a draft goes on where it was left: objects, deleted, in progress', () => {
    let state = openTask(task, null, 'annotate');
    state = after(state, { type: 'delete', id: 'p2' }, { type: 'exhaustive', value: true });
    state = after(answered(after(state, point(80, 60, 1, 'n')), answerOf(80, 60, 9)), {
      type: 'commit',
    });
    state = after(state, { type: 'select', id: 'p1' }, stroke('brush', [[35, 15]]));
    const draft = toDraft(state);
    const back = openTask(task, JSON.parse(JSON.stringify(draft)), 'annotate');
    expect(toDraft(back)).toEqual(draft);
    expect(back.doc.objects.map(({ id, number, made }) => [id, number, made])).toEqual([
      ['p1', 1, 'kept'],
      ['n', 3, 'new'],
    ]);
    expect(back.doc.deleted.map(({ id }) => id)).toEqual(['p2']);
    expect(back.doc.current?.id).toBe('p1');
    expect(equal(back.doc.current!.mask, state.doc.current!.mask)).toBe(true);
    const committed = after(back, { type: 'commit' });
    expect(committed.doc.objects[0]?.made).toBe('corrected');
  });

  it('asks again what had no answer when the page went away', () => {
    const state = after(
      openTask(task, null, 'annotate'),
      point(80, 60, 1, 'n'),
      { type: 'commit' },
      point(5, 70, 1, 'm'),
    );
    const draft = toDraft(state);
    expect(fromRle(draft.objects.at(-1)!.rle).area).toBe(0);
    const back = openTask(task, draft, 'annotate');
    expect(pendingRequests(back.doc).map(({ objectId }) => objectId)).toEqual(['m', 'n']);
    const revisions = pendingRequests(back.doc).map(({ revision }) => revision);
    expect(new Set(revisions).size).toBe(2);
    expect(back.revision).toBeGreaterThanOrEqual(Math.max(...revisions));
  });
});

describe('a draft', () => {
  it('names deleted proposals only: what one made oneself is simply gone', () => {
    let state = openTask(task, null, 'annotate');
    state = after(answered(after(state, point(80, 60, 1, 'n')), answerOf(80, 60, 9)), {
      type: 'commit',
    });
    state = after(state, { type: 'delete', id: 'n' }, { type: 'delete', id: 'p1' });
    expect(toDraft(state).deleted).toEqual(['p1']);
    expect(toDraft(state).objects.map(({ id }) => id)).toEqual(['p2']);
  });

  it('leaves a mask that is only held out of what is in progress', () => {
    const state = after(openTask(task, null, 'annotate'), { type: 'select', id: 'p1' });
    expect(toDraft(state).current).toBeNull();
  });

  it('sends an untouched proposal back byte for byte', () => {
    const { objects } = toDraft(openTask(task, null, 'annotate'));
    expect(objects).toEqual(task.proposals);
  });
});

describe('proposals to check', () => {
  const opened = openTask(task, null, 'annotate');

  it('are confirmed with Enter, which undo takes back', () => {
    const state = after(opened, { type: 'select', id: 'p1' }, { type: 'commit' });
    expect(state.doc.current).toBeNull();
    expect(toDraft(state).objects.map(({ accepted }) => accepted)).toEqual([true, null]);
    expect(state.doc.objects[0]?.made).toBe('kept');
    expect(after(state, { type: 'undo' }).doc.objects.every(isToCheck)).toBe(true);
  });

  it('are confirmed by correcting them, too', () => {
    const state = after(opened, stroke('eraser', [[15, 15]]), { type: 'commit' });
    expect(state.doc.objects[0]).toMatchObject({ accepted: true, made: 'corrected' });
  });

  it('are not confirmed by passing them', () => {
    const passed = after(opened, { type: 'select', id: 'p1' }, { type: 'select', id: 'p2' });
    expect(after(passed, { type: 'clear' }).doc.objects.filter(isToCheck)).toHaveLength(2);
  });

  it('are gone through one after the other, and round again', () => {
    const confirmed = after(opened, { type: 'select', id: 'p1' }, { type: 'commit' });
    expect(neighbour(confirmed, 1)?.id).toBe('p2');
    const last = after(confirmed, { type: 'select', id: 'p2' });
    expect(neighbour(last, 1)).toBeNull();
    expect(neighbour(after(last, { type: 'commit' }), 1)?.id).toBe('p1');
  });
});
