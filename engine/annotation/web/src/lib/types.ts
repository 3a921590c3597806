// The JSON values that travel between the page and the service; the names are the service's.
// Coordinates are pixels of the original image (EXIF applied), x right, y down; pixel i covers [i, i+1).

export type Prompt =
  | { kind: 'point'; x: number; y: number; label: 0 | 1 }
  | { kind: 'box'; x0: number; y0: number; x1: number; y1: number }
  | { kind: 'stroke'; mode: 'brush' | 'eraser'; radius: number; points: [number, number][] };

/** COCO run lengths: column-major, zeros first, compressed to a string. `size` is [height, width]. */
export interface Rle {
  size: [number, number];
  counts: string;
}

export type DecoderKind = 'browser' | 'server';

/** One mask of a task. `proposal`: the model put it there before anybody looked. */
export interface Obj {
  id: string;
  proposal: boolean;
  rle: Rle;
  predicted_iou: number | null;
  prompts: Prompt[];
  decoder: DecoderKind | null;
  accepted: boolean | null;
}

/** The unsent state of a task; `version` counts the server's copies, 0 where it has none. */
export interface Draft {
  version: number;
  objects: Obj[];
  deleted: string[];
  exhaustive: boolean;
  current: Obj | null;
}

/** What a person did, in order. `seq` counts up within one visit of a task (its `page_id`). */
export interface TaskEvent {
  seq: number;
  at_ms: number;
  kind: string;
  object_id: string | null;
  data: Record<string, unknown>;
}

export type Role = 'annotator' | 'reviewer' | 'admin';
export type Stage = 'manual' | 'semi';

export interface Me {
  name: string;
  role: Role;
  /** Which service this is: two workspaces served on the same port are two. */
  service?: string;
}

export interface TaskCampaign {
  id: string;
  name: string;
  stage: Stage;
  instructions: string;
  model: string;
  model_id: string;
}

/** `id` is a decimal string: 63 bits do not fit a number. The others are addresses of the service. */
export interface TaskImage {
  id: string;
  width: number;
  height: number;
  pixels: string;
  preview: string;
  embedding: string;
}

export type Verdict = 'accept' | 'fix' | 'reject';

export interface ObjectVerdict {
  object_id: string;
  verdict: Verdict;
  reason?: string | null;
  rle?: Rle | null;
}

/** Why a reviewer sent a task back. */
export interface Returned {
  reason: string | null;
  verdicts: ObjectVerdict[];
}

export interface Task {
  id: string;
  campaign: TaskCampaign;
  image: TaskImage;
  proposals: Obj[];
  draft: Draft | null;
  returned: Returned | null;
  /** Address of the decoder's description. */
  decoder: string;
}

export interface Lease {
  task: Task;
  lease_id: string;
  seconds: number;
  expires_at: string;
}

export type NothingReason =
  'all-done' | 'all-leased' | 'closed' | 'needs-review' | 'own-work' | 'no-images' | (string & {});

export interface Nothing {
  nothing: NothingReason;
  message: string;
}

export interface Upcoming {
  image: TaskImage;
  decoder: string;
}

/** A finished task. `submission_id` is made by the page: sent twice, it counts once. */
export interface Submission {
  submission_id: string;
  objects: Obj[];
  deleted: string[];
  exhaustive: boolean;
  page_id: string;
  last_seq: number;
  events: TaskEvent[];
}

export type Made = 'kept' | 'corrected' | 'new';

export interface ReviewObject extends Obj {
  made: Made;
  active_seconds: number | null;
}

/** What a reviewer is shown of the annotator's work. */
export interface ReviewedSubmission {
  annotator: string;
  submitted_at: string;
  active_seconds: number | null;
  exhaustive: boolean;
  objects: ReviewObject[];
  deleted: Obj[];
}

export interface ReviewLease extends Lease {
  submission: ReviewedSubmission;
}

export interface Verdicts {
  submission_id: string;
  verdicts: ObjectVerdict[];
  /** About the whole image. */
  reason?: string | null;
  /** Masks are missing: back to the annotator even though none is rejected. */
  incomplete?: boolean;
}

export interface CampaignTasks {
  total: number;
  open: number;
  leased: number;
  returned: number;
  submitted: number;
  accepted: number;
  skipped: number;
}

export interface Campaign extends TaskCampaign {
  state: 'open' | 'complete' | 'closed';
  review: boolean;
  annotators_per_image: number;
  images: number;
  tasks: CampaignTasks;
  mine: { done: number; returned: number; skipped: number };
  masks: number;
  /** Tasks that the caller could review now. */
  reviewable: number;
}

/** A person who may sign in; for admins. */
export interface Annotator {
  id: string;
  name: string;
  role: Role;
  invited_at: string;
  revoked_at: string | null;
}

/** The link signs somebody in and is shown this once. */
export interface Invitation {
  id: string;
  name: string;
  role: Role;
  token: string;
  link: string;
}

/** Counts and rates of one slice of a campaign; null where there is nothing to divide by. */
export interface FigureRow {
  tasks: number;
  images: number;
  skipped: number;
  masks: number;
  active_seconds: number | null;
  seconds_per_mask_median: number | null;
  seconds_per_mask_mean: number | null;
  clicks_per_mask_median: number | null;
  clicks_per_mask_mean: number | null;
  masks_per_image_mean: number | null;
  made: { kept: number; corrected: number; new: number; deleted: number };
  verdicts: { accepted: number; fixed: number; rejected: number };
  browser_share: number | null;
}

/** `counts[i]` values lie in [edges[i], edges[i + 1]). */
export interface Histogram {
  edges: number[];
  counts: number[];
}

export interface Agreement {
  images: number;
  pairs: number;
  mean_iou: number | null;
  share_above_75: number | null;
  share_above_90: number | null;
  by_pair: { annotators: [string, string]; pairs: number; mean_iou: number | null }[];
}

export interface Figures {
  campaign: { id: string; name: string; stage: Stage; model: string; model_id: string };
  made_at: string;
  total: FigureRow;
  by_annotator: (FigureRow & { annotator: string })[];
  by_model: (FigureRow & { model: string; model_id: string })[];
  by_day: (FigureRow & { day: string })[];
  seconds_histogram: Histogram;
  clicks_histogram: Histogram;
  agreement: Agreement | null;
}

/** The files of a decoder in the browser (the service's decoder.json). */
export interface DecoderFile {
  name: string;
  sha256: string;
  bytes: number;
}

export interface DecoderDescription {
  model_id: string;
  image_size: number;
  pad_multiple: number;
  low_res_stride: number;
  points: string;
  inputs: { name: string; shape: (number | null)[] }[];
  files: { prepare: DecoderFile | null; decode: DecoderFile };
}

/** An event as the editor makes it; sequence number and clock are the event log's. */
export interface EditorEvent {
  kind: string;
  object_id: string | null;
  data: Record<string, unknown>;
}

/** What the editor hands over: the same as a draft, without the version, which is not its business. */
export type EditorDraft = Omit<Draft, 'version'>;

/** How an object is marked in a review. */
export type Tint = Verdict | Made;

/** What the page passes to <Editor>; `D` is lib/decoder's Decoder. */
export interface EditorProps<D> {
  task: Task;
  decoder: D;
  /** Where to begin: the newest draft, or null for the task's own proposals. */
  draft: EditorDraft | null;
  readonly?: boolean;
  /** In a review nothing new is begun: objects are looked at and corrected. */
  review?: boolean;
  /** An object selected from outside (the review's list). */
  selected?: string | null;
  tint?: Record<string, Tint>;
  onchange?: (draft: EditorDraft) => void;
  onevent?: (event: EditorEvent) => void;
  onsubmit?: (draft: EditorDraft) => void;
  onskip?: (reason: string) => void;
  onselect?: (objectId: string | null) => void;
}
