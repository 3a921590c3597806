// Verdicts: said by keys, or drawn: a changed mask is a fix, a deleted one a rejection.

import { expect, it } from 'vitest';
import { Judging } from '../src/lib/judging.svelte';
import type { ReviewedSubmission } from '../src/lib/types';
import { object } from './sync/fake_service';

function judging(...ids: string[]): Judging {
  const submission: ReviewedSubmission = {
    ...{ annotator: 'ada', submitted_at: '', active_seconds: 1, exhaustive: false, deleted: [] },
    objects: ids.map((id) => ({ ...object(id), made: 'new', active_seconds: 1 })),
  };
  return new Judging(submission);
}

it('every mask needs a verdict, and one rejection sends the image back', () => {
  const one = judging('a', 'b', 'c');
  one.accept('a');
  expect([one.missing, one.rejects]).toEqual([2, false]);
  one.reject('b', 'The edge is off');
  one.acceptRest();
  expect([one.missing, one.rejects]).toEqual([0, true]);
  expect(one.answer()).toEqual({
    verdicts: [
      { object_id: 'a', verdict: 'accept' },
      { object_id: 'b', verdict: 'reject', reason: 'The edge is off' },
      { object_id: 'c', verdict: 'accept' },
    ],
    reason: null,
    incomplete: false,
  });
});

it('missing masks send it back though none is rejected', () => {
  const one = judging('a');
  one.acceptRest();
  one.incomplete = true;
  one.reason = ' The cat. ';
  expect(one.rejects).toBe(true);
  expect(one.answer()).toMatchObject({ incomplete: true, reason: 'The cat.' });
});

it('a mask that was changed is a fix, also after it was accepted, and none when it is undone', () => {
  const one = judging('a', 'b');
  const draft = one.draft();
  one.accept('a');
  const changed = { ...object('a', '13') };
  one.drawn({ ...draft, current: changed });
  expect(one.verdictOf('a')).toMatchObject({ verdict: 'fix', rle: { counts: '13' } });
  one.accept('a');
  expect(one.verdictOf('a')).toMatchObject({ verdict: 'fix' });
  expect(one.tint).toEqual({ a: 'fix', b: 'new' });
  one.drawn(draft);
  expect(one.verdictOf('a')).toBeNull();
});

it('a mask that was deleted is rejected, with the words that were said before', () => {
  const one = judging('a', 'b');
  const draft = one.draft();
  one.reject('a', 'Marked twice');
  one.drawn({ ...draft, objects: [] });
  expect(one.verdictOf('a')).toMatchObject({ verdict: 'reject', reason: 'Marked twice' });
  expect(one.verdictOf('b')).toMatchObject({ verdict: 'reject', reason: 'Not an object' });
  one.drawn(draft);
  expect(one.verdictOf('a')).toMatchObject({ verdict: 'reject', reason: 'Marked twice' });
  expect(one.verdictOf('b')).toBeNull();
});

it('the next mask is the next one without a verdict, round and round', () => {
  const one = judging('a', 'b', 'c');
  one.accept('b');
  expect(one.selected).toBe('a');
  one.next();
  expect(one.selected).toBe('c');
  one.next();
  expect(one.selected).toBe('a');
  one.acceptRest();
  one.next();
  expect(one.selected).toBe('b');
});

it('what goes to the service has no keys that it does not know', () => {
  expect(Object.keys(judging('a').draft().objects[0]!)).not.toContain('made');
});
