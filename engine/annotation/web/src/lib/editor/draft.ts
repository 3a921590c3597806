// Between the values that travel (types.ts) and the editor's state.

import { fromRle, toRle, type Mask } from '../masks';
import type { EditorDraft, Obj, Rle, Task } from '../types';
import { colourFor } from './colours';
import { madeOf } from './objects';
import { noMask } from './prompting';
import { initialState, type Beginning } from './state';
import type { Current, DecodeRequest, EditorMode, EditorObject, EditorState } from './values';

/** Begin a task: from a draft where there is one, else from what the model pre-filled. */
export function openTask(task: Task, draft: EditorDraft | null, mode: EditorMode): EditorState {
  const { width, height } = task.image;
  const proposals = new Map(task.proposals.map((one) => [one.id, one]));
  const prefilled = new Map(task.proposals.map((one) => [one.id, maskOf(one.rle, width, height)]));
  const kept = draft?.objects ?? task.proposals;
  const gone = (draft?.deleted ?? []).flatMap((id) => proposals.get(id) ?? []);
  const beginning: Beginning = { width, height, mode, exhaustive: draft?.exhaustive ?? false };
  let revision = 0;
  const numbers = numbering(task.proposals, kept);
  const object = (obj: Obj, others: readonly EditorObject[]): EditorObject => {
    const before = prefilled.get(obj.id) ?? null;
    const same = before !== null && proposals.get(obj.id)?.rle.counts === obj.rle.counts;
    const mask = same ? before : maskOf(obj.rle, width, height);
    const waits = mask.area === 0 ? requestOf(obj, revision + 1) : null;
    if (waits) revision++;
    return {
      id: obj.id,
      number: numbers.get(obj.id) ?? 0,
      colour: colourFor(mask, others),
      proposal: obj.proposal,
      made: madeOf(obj.proposal, before, mask),
      prefilled: before,
      mask,
      predictedIou: obj.predicted_iou,
      prompts: obj.prompts,
      decoder: obj.decoder,
      accepted: obj.accepted,
      pending: waits,
    };
  };
  const objects: EditorObject[] = [];
  for (const obj of kept) objects.push(object(obj, objects));
  objects.sort((a, b) => a.number - b.number);
  const deleted = gone.map((obj) => object(obj, objects)).sort((a, b) => a.number - b.number);
  const waiting = draft?.current ?? null;
  const current = waiting ? currentOf(waiting, width, height, revision + 1) : null;
  if (current?.pending) revision++;
  return initialState({ ...beginning, objects, deleted, current, revision });
}

/** The unsent state: everything, also what still waits for the decoder. */
export function toDraft(state: EditorState): EditorDraft {
  const { objects, deleted, current, exhaustive } = state.doc;
  const inProgress = current?.changed ? current : null;
  const before = objects.find((object) => object.id === inProgress?.id);
  return {
    objects: objects.map(objOf),
    deleted: deleted.filter(({ proposal }) => proposal).map(({ id }) => id),
    exhaustive,
    current: inProgress
      ? {
          id: inProgress.id,
          proposal: before?.proposal ?? false,
          rle: rleOf(inProgress.mask),
          predicted_iou: inProgress.predictedIou,
          prompts: [...inProgress.prompts],
          decoder: inProgress.decoder,
          accepted: before?.accepted ?? null,
        }
      : null,
  };
}

const encoded = new WeakMap<Mask, Rle>();

/** A mask's RLE; masks never change, so each is encoded once. */
export function rleOf(mask: Mask): Rle {
  let rle = encoded.get(mask);
  if (!rle) encoded.set(mask, (rle = toRle(mask)));
  return rle;
}

export function objOf(object: EditorObject): Obj {
  return {
    id: object.id,
    proposal: object.proposal,
    rle: rleOf(object.mask),
    predicted_iou: object.predictedIou,
    prompts: [...object.prompts],
    decoder: object.decoder,
    accepted: object.accepted,
  };
}

function maskOf(rle: Rle, width: number, height: number): Mask {
  if (rle.size[0] !== height || rle.size[1] !== width)
    throw new RangeError(
      `a mask of ${width}x${height} expected; got one of ${rle.size[1]}x${rle.size[0]}`,
    );
  const mask = fromRle(rle);
  encoded.set(mask, rle);
  return mask.area === 0 ? noMask(width, height) : mask;
}

/** Proposals keep the numbers of their order; the others count on. */
function numbering(proposals: readonly Obj[], kept: readonly Obj[]): Map<string, number> {
  const numbers = new Map(proposals.map(({ id }, at) => [id, at + 1]));
  for (const { id } of kept) if (!numbers.has(id)) numbers.set(id, numbers.size + 1);
  return numbers;
}

function currentOf(obj: Obj, width: number, height: number, revision: number): Current {
  const mask = maskOf(obj.rle, width, height);
  return {
    id: obj.id,
    prompts: obj.prompts,
    mask,
    predictedIou: obj.predicted_iou,
    decoder: obj.decoder,
    answer: null,
    chosen: 0,
    pending: mask.area === 0 ? requestOf(obj, revision) : null,
    changed: true,
  };
}

/** A question that was open when the page went away is asked again. */
function requestOf(obj: Obj, revision: number): DecodeRequest | null {
  if (!obj.prompts.some(({ kind }) => kind !== 'stroke')) return null;
  return { revision, objectId: obj.id, prompts: obj.prompts, seed: null };
}
