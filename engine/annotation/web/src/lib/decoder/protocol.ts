// What the page and its decoder's worker say to each other. Every request has one reply.

import type { Frame } from '../masks';
import type { RawAnswer } from './candidates';
import type { Candidate, DecoderPrompts } from './types';

export interface LoadRequest {
  readonly kind: 'load';
  readonly decode: ArrayBuffer;
  readonly prepare: ArrayBuffer | null;
  readonly threads: number;
}

export interface PrepareRequest {
  readonly kind: 'prepare';
  readonly key: string;
  /** The safetensors body of the image's embedding. */
  readonly embedding: ArrayBuffer;
}

export interface DecodeRequest {
  readonly kind: 'decode';
  readonly key: string;
  readonly frame: Frame;
  readonly prompts: DecoderPrompts;
}

/** Make masks of what the server decoded. */
export interface MasksRequest {
  readonly kind: 'masks';
  readonly raw: RawAnswer;
  readonly frame: Frame;
  readonly prompts: DecoderPrompts;
}

export interface ForgetRequest {
  readonly kind: 'forget';
  readonly key: string;
}

/** Each request and what answers it. */
export interface Calls {
  load: { request: LoadRequest; value: null };
  prepare: { request: PrepareRequest; value: null };
  decode: { request: DecodeRequest; value: Candidate[] };
  masks: { request: MasksRequest; value: Candidate[] };
  forget: { request: ForgetRequest; value: null };
}

export type AnyRequest = Calls[keyof Calls]['request'];

export interface Envelope {
  readonly id: number;
  readonly request: AnyRequest;
}

export type Reply =
  | { readonly id: number; readonly value: Calls[keyof Calls]['value'] }
  | { readonly id: number; readonly error: string };
