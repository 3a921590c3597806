// Clicks to masks, in the browser or on the server.
//
//   const { decoder, measured } = await chooseDecoder(description, { task, lease, api, base });
//   const prepared = await decoder.prepare(task);
//   const answer = await decoder.decode(prepared, { points: [{ x, y, label: 1 }], box: null, mask: null });
//   show(answer.candidates[answer.best].mask);

export type { Frame } from '../masks';
export { chooseDecoder, describeMeasured, threadsHere } from './choose';
export type { ChooseOptions, Chosen, Measured } from './choose';
export { BrowserDecoder } from './browser';
export { ServerDecoder } from './server';
export { serviceSource, type Source } from './source';
export { DecoderError } from './types';
export type {
  Answer,
  Candidate,
  Decoder,
  DecoderPrompts,
  DecoderTask,
  Prepared,
  PromptPoint,
} from './types';
