// Who waits for whom.

import { expect, test } from 'vitest';
import { Scheduler } from '../../src/lib/decoder/scheduler';
import { Gate } from './fakes';

function busyScheduler(): { scheduler: Scheduler; gate: Gate; done: string[]; work: Work } {
  const [scheduler, gate] = [new Scheduler(), new Gate()];
  const done: string[] = [];
  void scheduler.add('click', () => gate.passed);
  const work: Work = (name) => () => Promise.resolve(void done.push(name)).then(() => name);
  return { scheduler, gate, done, work };
}
type Work = (name: string) => () => Promise<string>;

test('clicks come first, in order, then the newest preview, then what can wait', async () => {
  const { scheduler, gate, done, work } = busyScheduler();
  const answers = Promise.all([
    scheduler.add('later', work('next image')),
    scheduler.add('click', work('first click')),
    scheduler.add('click', work('second click')),
    scheduler.preview(work('old preview')),
    scheduler.preview(work('new preview')),
  ]);
  gate.open();
  expect(await answers).toEqual(['next image', 'first click', 'second click', null, 'new preview']);
  expect(done).toEqual(['first click', 'second click', 'new preview', 'next image']);
});

test('a click drops a preview that has not begun', async () => {
  const { scheduler, gate, done, work } = busyScheduler();
  const preview = scheduler.preview(work('preview'));
  const click = scheduler.add('click', work('click'));
  gate.open();
  expect([await preview, await click]).toEqual([null, 'click']);
  expect(done).toEqual(['click']);
});

test('work that fails is told to who asked, and the next goes on', async () => {
  const scheduler = new Scheduler();
  const failing = scheduler.add('click', () => Promise.reject(new Error('no')));
  const next = scheduler.add('click', () => Promise.resolve('yes'));
  await expect(failing).rejects.toThrow('no');
  expect(await next).toBe('yes');
});
