// The page's only way to the service: typed calls over fetch, errors as values of one class.
//   const lease = await new Api().next(campaignId);

import type {
  Annotator,
  Campaign,
  DecoderDescription,
  Draft,
  Figures,
  Invitation,
  Lease,
  Me,
  Nothing,
  ReviewLease,
  Role,
  Submission,
  TaskEvent,
  Upcoming,
  Verdicts,
} from './types';

const TIMEOUT_MS = 30_000;
const MIN_RETRY_STATUS = 500;

/** What the service (or the way to it) answered instead of a result. `status` is 0 without an answer. */
export class ApiError extends Error {
  override readonly name = 'ApiError';

  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    /** The whole body of the answer: a draft conflict carries the service's draft. */
    readonly details: Record<string, unknown> = {},
    readonly retryAfterMs: number = 0,
  ) {
    super(message);
  }

  /** Whether the same call may succeed later without anybody doing anything. */
  get temporary(): boolean {
    return this.status === 0 || this.status === 429 || this.status >= MIN_RETRY_STATUS;
  }

  get leaseLost(): boolean {
    return this.status === 409 && this.code === 'lease_lost';
  }

  get signedOut(): boolean {
    return this.status === 401;
  }
}

export interface CallOptions {
  method?: 'GET' | 'POST' | 'PUT' | 'DELETE';
  body?: unknown;
  lease?: string;
  headers?: Record<string, string>;
  signal?: AbortSignal | undefined;
  timeoutMs?: number;
  /** How long to wait while the service says that it is still making the thing (503, Retry-After). */
  patienceMs?: number;
}

export interface ApiOptions {
  fetch?: typeof fetch;
  /** Called on every 401, so that the page can ask for a new link in one place. */
  onsignedout?: () => void;
}

export class Api {
  readonly #fetch: typeof fetch;
  readonly #onsignedout: () => void;

  constructor(options: ApiOptions = {}) {
    this.#fetch = options.fetch ?? ((input, init) => fetch(input, init));
    this.#onsignedout = options.onsignedout ?? (() => undefined);
  }

  join(token: string): Promise<Me> {
    return this.json('/api/session', { method: 'POST', body: { token } });
  }
  leave(): Promise<void> {
    return this.json('/api/session', { method: 'DELETE', body: {} });
  }
  me(): Promise<Me> {
    return this.json('/api/me');
  }

  async campaigns(signal?: AbortSignal): Promise<Campaign[]> {
    return listOf<Campaign>(await this.json('/api/campaigns', { signal }), 'campaigns');
  }
  campaign(id: string, signal?: AbortSignal): Promise<Campaign> {
    return this.json(`/api/campaigns/${encodeURIComponent(id)}`, { signal });
  }
  figures(id: string, signal?: AbortSignal): Promise<Figures> {
    return this.json(`/api/campaigns/${encodeURIComponent(id)}/figures`, { signal });
  }

  /** `finished`: tasks whose submissions this page still has to send; they are not given again. */
  next(campaignId: string, finished: string[] = []): Promise<Lease | Nothing> {
    const path = `/api/campaigns/${encodeURIComponent(campaignId)}/next`;
    return this.json(path, { method: 'POST', body: { finished } });
  }
  nextReview(campaignId: string, finished: string[] = []): Promise<ReviewLease | Nothing> {
    const path = `/api/campaigns/${encodeURIComponent(campaignId)}/next-review`;
    return this.json(path, { method: 'POST', body: { finished } });
  }
  async upcoming(campaignId: string, n: number, signal?: AbortSignal): Promise<Upcoming[]> {
    const path = `/api/campaigns/${encodeURIComponent(campaignId)}/upcoming?n=${n}`;
    return listOf<Upcoming>(await this.json(path, { signal }), 'upcoming');
  }

  heartbeat(taskId: string, lease: string): Promise<{ expires_at: string; seconds: number }> {
    return this.json(task(taskId, 'heartbeat'), { method: 'POST', body: {}, lease });
  }
  saveDraft(taskId: string, lease: string, draft: Draft): Promise<{ version: number }> {
    const headers = { 'If-Match': `"${draft.version}"` };
    return this.json(task(taskId, 'draft'), { method: 'PUT', body: draft, lease, headers });
  }
  sendEvents(taskId: string, lease: string, pageId: string, events: TaskEvent[]): Promise<unknown> {
    const body = { page_id: pageId, events };
    return this.json(task(taskId, 'events'), { method: 'POST', body, lease });
  }
  submit(taskId: string, lease: string, submission: Submission): Promise<unknown> {
    const options = { body: submission, lease, timeoutMs: 2 * TIMEOUT_MS };
    return this.json(task(taskId, 'submit'), { method: 'POST', ...options });
  }
  skip(taskId: string, lease: string, reason: string): Promise<unknown> {
    return this.json(task(taskId, 'skip'), { method: 'POST', body: { reason }, lease });
  }
  giveBack(taskId: string, lease: string): Promise<unknown> {
    return this.json(task(taskId, 'give-back'), { method: 'POST', body: {}, lease });
  }
  verdicts(taskId: string, lease: string, verdicts: Verdicts): Promise<unknown> {
    return this.json(task(taskId, 'verdicts'), { method: 'POST', body: verdicts, lease });
  }

  async people(signal?: AbortSignal): Promise<Annotator[]> {
    return listOf<Annotator>(await this.json('/api/annotators', { signal }), 'annotators');
  }
  invite(name: string, role: Role): Promise<Invitation> {
    return this.json('/api/annotators', { method: 'POST', body: { name, role } });
  }
  renewInvitation(id: string): Promise<Invitation> {
    const path = `/api/annotators/${encodeURIComponent(id)}/invitation`;
    return this.json(path, { method: 'POST', body: {} });
  }
  revoke(id: string): Promise<unknown> {
    const path = `/api/annotators/${encodeURIComponent(id)}`;
    return this.json(path, { method: 'DELETE', body: {} });
  }

  decoder(url: string, signal?: AbortSignal): Promise<DecoderDescription> {
    return this.json(url, { signal });
  }

  /** A JSON call. An empty answer gives undefined, which suits calls that return nothing. */
  async json<T>(path: string, options: CallOptions = {}): Promise<T> {
    return this.#call(path, options, async (response) => {
      const text = await response.text();
      return (text ? JSON.parse(text) : undefined) as T;
    });
  }

  /** A call whose answer is bytes: pixels, embeddings, the server's masks. */
  async bytes(path: string, options: CallOptions = {}): Promise<ArrayBuffer> {
    let patienceMs = options.patienceMs ?? 0;
    for (;;) {
      try {
        return await this.#call(path, options, (response) => response.arrayBuffer());
      } catch (error) {
        if (!(error instanceof ApiError) || error.status !== 503 || patienceMs <= 0) throw error;
        const wait = Math.min(patienceMs, error.retryAfterMs || 1_000);
        patienceMs -= wait;
        await pause(wait, options.signal);
      }
    }
  }

  async #call<T>(
    path: string,
    options: CallOptions,
    read: (response: Response) => Promise<T>,
  ): Promise<T> {
    const { signal: outer, timeoutMs = TIMEOUT_MS } = options;
    const timeout = new AbortController();
    const timer = setTimeout(() => timeout.abort(), timeoutMs);
    const signal = outer ? AbortSignal.any([outer, timeout.signal]) : timeout.signal;
    try {
      const response = await this.#fetch(path, { ...requestInit(options), signal });
      if (!response.ok) throw await errorOf(response);
      return await read(response);
    } catch (error) {
      if (error instanceof ApiError) {
        if (error.signedOut && path !== '/api/session') this.#onsignedout();
        throw error;
      }
      if (outer?.aborted) throw error; // whoever aborted knows
      if (timeout.signal.aborted) {
        throw new ApiError(0, 'timeout', `No answer within ${timeoutMs / 1000} s.`);
      }
      if (error instanceof SyntaxError) {
        throw new ApiError(502, 'not_json', `${path} did not answer with JSON.`);
      }
      throw new ApiError(0, 'network', 'The service cannot be reached.');
    } finally {
      clearTimeout(timer);
    }
  }
}

export function isNothing(answer: Lease | Nothing): answer is Nothing {
  return 'nothing' in answer;
}

function task(id: string, action: string): string {
  return `/api/tasks/${encodeURIComponent(id)}/${action}`;
}

function requestInit(options: CallOptions): RequestInit {
  const headers: Record<string, string> = { Accept: 'application/json', ...options.headers };
  // The service refuses changes without this header: a form on another site cannot set it.
  if (options.method && options.method !== 'GET') headers['X-Maskwheel'] = '1';
  if (options.lease) headers['X-Lease'] = options.lease;
  const init: RequestInit = {
    method: options.method ?? 'GET',
    headers,
    credentials: 'same-origin',
  };
  if (options.body !== undefined) {
    headers['Content-Type'] = 'application/json';
    init.body = JSON.stringify(options.body);
  }
  return init;
}

async function errorOf(response: Response): Promise<ApiError> {
  const body = await response
    .json()
    .then((value: unknown) => (isRecord(value) ? value : {}))
    .catch(() => ({}) as Record<string, unknown>);
  const code = typeof body['code'] === 'string' ? body['code'] : `http_${response.status}`;
  const message =
    typeof body['message'] === 'string'
      ? body['message']
      : `The service answered ${response.status} ${response.statusText}`.trim() + '.';
  const seconds = Number(response.headers.get('Retry-After') ?? 0);
  return new ApiError(response.status, code, message, body, seconds > 0 ? seconds * 1000 : 0);
}

/** Resolves after a while; rejects as soon as `signal` aborts. */
function pause(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener('abort', () => {
      clearTimeout(timer);
      reject(signal.reason as Error);
    });
  });
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The service may wrap a list (`{campaigns: [...]}`) or not. */
function listOf<T>(answer: unknown, key: string): T[] {
  if (Array.isArray(answer)) return answer as T[];
  if (isRecord(answer) && Array.isArray(answer[key])) return answer[key] as T[];
  throw new ApiError(502, 'not_a_list', `The service did not answer with a list of ${key}.`);
}
