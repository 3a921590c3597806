// The development page: the editor on a picture (?image=, or a painted one of ?width= by ?height=) with
// ?masks= blobs pre-filled and a decoder that takes ?ms= and may ?fail.

import { mount } from 'svelte';
import Editor from '../../../src/components/editor/Editor.svelte';
import type { EditorDraft, EditorEvent, Task } from '../../../src/lib/types';
import '../../../src/styles.css';
import { blobs, seeded } from './blobs';
import { fakeDecoder } from './fake_decoder';

const asked = new URLSearchParams(location.search);
const number = (name: string, otherwise: number): number => Number(asked.get(name) ?? otherwise);

async function painted(width: number, height: number): Promise<Blob> {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext('2d')!;
  const random = seeded(3);
  const ground = context.createLinearGradient(0, 0, width, height);
  ground.addColorStop(0, '#5d7f86');
  ground.addColorStop(1, '#c9b79a');
  context.fillStyle = ground;
  context.fillRect(0, 0, width, height);
  for (let i = 0; i < 400; i++) {
    const radius = (0.01 + 0.05 * random()) * height;
    context.fillStyle = `hsl(${random() * 360} ${20 + random() * 30}% ${30 + random() * 40}%)`;
    context.beginPath();
    context.ellipse(
      random() * width,
      random() * height,
      radius,
      radius * (0.5 + random()),
      random() * 3,
      0,
      7,
    );
    context.fill();
  }
  return canvas.convertToBlob({ type: 'image/jpeg', quality: 0.9 });
}

const url = asked.get('image');
const bytes = url
  ? await (await fetch(url)).blob()
  : await painted(number('width', 1500), number('height', 1000));
const pixels = await createImageBitmap(bytes);
const { width, height } = pixels;
const address = URL.createObjectURL(bytes);
const settings = { milliseconds: number('ms', 15), fails: asked.has('fail') };
const decoder = fakeDecoder(pixels, width, height, settings);
const task: Task = {
  id: 'task-1',
  campaign: {
    id: 'campaign-1',
    name: 'Trial',
    stage: 'manual',
    instructions: '',
    model: 'bundled',
    model_id: 'fake',
  },
  image: { id: '1', width, height, pixels: address, preview: address, embedding: '' },
  proposals: blobs(number('masks', 0), width, height),
  draft: null,
  returned: null,
  decoder: '',
};

const record: {
  drafts: EditorDraft[];
  events: EditorEvent[];
  submitted: EditorDraft[];
  skipped: string[];
} = {
  drafts: [],
  events: [],
  submitted: [],
  skipped: [],
};
Object.assign(window, { record, settings });

mount(Editor, {
  target: document.getElementById('app')!,
  props: {
    task,
    decoder: asked.has('nodecoder') ? null : decoder,
    draft: null,
    readonly: asked.has('readonly'),
    review: asked.has('review'),
    onchange: (draft: EditorDraft) => record.drafts.push(draft),
    onevent: (event: EditorEvent) => record.events.push(event),
    onsubmit: (draft: EditorDraft) => record.submitted.push(draft),
    onskip: (reason: string) => record.skipped.push(reason),
  },
});
