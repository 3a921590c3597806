// Questions to a decoder: one at a time, never lost; previews: always the newest place.

import { describe, expect, it } from 'vitest';
import { frameOf, type Mask } from '../../src/lib/masks';
import type { Answer, Decoder, DecoderPrompts } from '../../src/lib/decoder';
import { Decoding, type DecodingStatus } from '../../src/lib/editor/decoding';
import { HoverPreview, type Previewed } from '../../src/lib/editor/preview';
import type { DecodeRequest } from '../../src/lib/editor/values';
import { HEIGHT, square, taskOf, WIDTH } from './helpers';

/** A decoder that answers when it is told to. */
class HeldDecoder implements Decoder {
  readonly kind = 'browser';
  readonly threads = 1;
  readonly asked: {
    prompts: DecoderPrompts;
    answer: (mask?: Mask) => Promise<void>;
    fail: (reason: string) => Promise<void>;
  }[] = [];

  prepare = async (task: { id: string; image: ReturnType<typeof taskOf>['image'] }) => ({
    task,
    frame: frameOf(WIDTH, HEIGHT, 64, 16),
  });

  decode(_prepared: unknown, prompts: DecoderPrompts): Promise<Answer> {
    return new Promise((resolve, reject) => {
      this.asked.push({
        prompts,
        answer: async (mask = square(1, 1, 3)) => {
          const candidates = [{ mask, iou: 0.8, logits: new Float32Array(1) }];
          resolve({ candidates, best: 0, milliseconds: 12 });
          await settled();
        },
        fail: async (reason) => {
          reject(new Error(reason));
          await settled();
        },
      });
    });
  }

  preview = (prepared: unknown, prompts: DecoderPrompts) => this.decode(prepared, prompts);
  prefetch = async () => undefined;
  dispose = () => undefined;
}

const settled = (): Promise<void> => new Promise((done) => setTimeout(done));

function request(revision: number, seed: DecodeRequest['seed'] = null): DecodeRequest {
  const prompts = [{ kind: 'point', x: revision, y: 2, label: 1 } as const];
  return { revision, objectId: 'a', prompts, seed };
}

async function ready(open: DecodeRequest[]) {
  const decoder = new HeldDecoder();
  const timers: { milliseconds: number; ring: () => void }[] = [];
  const answers: number[] = [];
  const statuses: DecodingStatus[] = [];
  const decoding = new Decoding(taskOf(), {
    requests: () => open,
    answered: (revision) => {
      answers.push(revision);
      open.splice(
        open.findIndex((one) => one.revision === revision),
        1,
      );
    },
    failed: () => undefined,
    status: (status) => statuses.push(status),
    later: (milliseconds, ring) => {
      const timer = { milliseconds, ring };
      timers.push(timer);
      return () => void timers.splice(timers.indexOf(timer), 1);
    },
  });
  decoding.use(decoder);
  await settled();
  return { decoding, decoder, timers, answers, statuses };
}

describe('asking the decoder', () => {
  it('asks one question at a time and the next when the answer is there', async () => {
    const open = [request(1), request(2)];
    const { decoding, decoder, answers } = await ready(open);
    decoding.pump();
    expect(decoder.asked).toHaveLength(1);
    await decoder.asked[0]!.answer();
    expect(answers).toEqual([1]);
    expect(decoder.asked).toHaveLength(2);
    await decoder.asked[1]!.answer();
    expect(answers).toEqual([1, 2]);
  });

  it('brings a mask along as logits', async () => {
    const { decoder } = await ready([request(1, { kind: 'mask', mask: square(0, 0, 60) })]);
    const { mask } = decoder.asked[0]!.prompts;
    expect(mask?.length).toBe(16 * (Math.ceil((64 * HEIGHT) / WIDTH / 16) * 4));
    expect(mask?.[0]).toBeGreaterThan(0);
  });

  it('says why it failed, keeps the question and asks again', async () => {
    const open = [request(1)];
    const { decoder, timers, answers, statuses } = await ready(open);
    await decoder.asked[0]!.fail('no network');
    expect(statuses.at(-1)).toMatchObject({ phase: 'failed', reason: 'no network' });
    expect(timers).toHaveLength(1);
    timers[0]!.ring();
    await decoder.asked[1]!.answer();
    expect(answers).toEqual([1]);
    expect(statuses.at(-1)).toEqual({ phase: 'ready', kind: 'browser', milliseconds: 12 });
  });

  it('waits longer from failure to failure, and not at all when told to try now', async () => {
    const { decoding, decoder, timers } = await ready([request(1)]);
    await decoder.asked[0]!.fail('away');
    const first = timers.at(-1)!.milliseconds;
    decoding.retry();
    await decoder.asked[1]!.fail('away');
    expect(timers.at(-1)!.milliseconds).toBeGreaterThan(first);
    expect(decoder.asked).toHaveLength(2);
  });

  it('drops an answer that comes after it gave up waiting', async () => {
    const { decoder, timers, answers, statuses } = await ready([request(1)]);
    timers.find(({ milliseconds }) => milliseconds === 20_000)!.ring();
    expect(statuses.at(-1)).toMatchObject({ phase: 'failed' });
    await decoder.asked[0]!.answer();
    expect(answers).toEqual([]);
  });

  it('drops what the old decoder says once there is a new one', async () => {
    const { decoding, decoder, answers } = await ready([request(1)]);
    const other = new HeldDecoder();
    decoding.use(other);
    await settled();
    await decoder.asked[0]!.answer();
    expect(answers).toEqual([]);
    await other.asked[0]!.answer();
    expect(answers).toEqual([1]);
  });
});

describe('the hover preview', () => {
  function hovering(answerMs = 10) {
    const decoder = new HeldDecoder();
    const shown: (Previewed | null)[] = [];
    let now = 0;
    const prepared = { task: taskOf(), frame: frameOf(WIDTH, HEIGHT, 64, 16) };
    const preview = new HoverPreview(
      () => ({ decoder, prepared }),
      (previewed) => shown.push(previewed),
      () => (now += answerMs),
    );
    return { decoder, shown, preview };
  }

  it('asks about the newest place only, one after the other', async () => {
    const { decoder, shown, preview } = hovering();
    preview.at(1, 1);
    preview.at(2, 2);
    preview.at(3, 3);
    expect(decoder.asked).toHaveLength(1);
    await decoder.asked[0]!.answer();
    expect(decoder.asked[1]?.prompts.points).toEqual([{ x: 3, y: 3, label: 1 }]);
    await decoder.asked[1]!.answer();
    expect(shown.at(-1)).toMatchObject({ x: 3, y: 3 });
    expect(preview.answerAt(3, 3)).not.toBeNull();
    expect(preview.answerAt(3, 4)).toBeNull();
  });

  it('shows nothing that comes after it was stopped', async () => {
    const { decoder, shown, preview } = hovering();
    preview.at(1, 1);
    preview.stop();
    await decoder.asked[0]!.answer();
    expect(shown).toEqual([]);
  });

  it('gives up where the decoder is slow, until clicks are fast again', async () => {
    const { decoder, preview } = hovering(300);
    preview.at(1, 1);
    await decoder.asked[0]!.answer();
    preview.at(2, 2);
    expect(decoder.asked).toHaveLength(1);
    preview.clickTook(20);
    preview.clickTook(20);
    preview.at(3, 3);
    expect(decoder.asked).toHaveLength(2);
  });

  it('keeps quiet about a decoder that fails', async () => {
    const { decoder, shown, preview } = hovering();
    preview.at(1, 1);
    await decoder.asked[0]!.fail('away');
    expect(shown).toEqual([]);
    preview.at(2, 2);
    expect(decoder.asked).toHaveLength(2);
  });
});
