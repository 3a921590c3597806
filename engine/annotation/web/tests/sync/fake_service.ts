// A service in memory behind a scripted fetch: drafts with versions, events by (page, seq),
// submissions by id. It can be down, slow to answer, or lose its answers.

import { Api } from '../../src/lib/api';
import type { Draft, Lease, Obj, Submission, Task, TaskEvent } from '../../src/lib/types';

type Mode = 'up' | 'down' | 'lose-answers' | 'failing';

export class FakeService {
  mode: Mode = 'up';
  lease = 'lease-1';
  draft: Draft | null = null;
  events = new Map<string, TaskEvent>();
  submissions = new Map<string, Submission>();
  skipped: string[] = [];
  /** Every request that arrived, as "PUT /api/tasks/7/draft". */
  requests: string[] = [];
  /** Answers to give instead, by path end. */
  scripted = new Map<string, { status: number; body: object; headers?: Record<string, string> }>();

  readonly api = new Api({ fetch: (input, init) => this.fetch(String(input), init ?? {}) });

  private async fetch(path: string, init: RequestInit): Promise<Response> {
    if (this.mode === 'down') throw new TypeError('Failed to fetch');
    this.requests.push(`${init.method ?? 'GET'} ${path}`);
    const response = this.answer(path, init);
    if (this.mode === 'lose-answers') throw new TypeError('Failed to fetch');
    return response;
  }

  private answer(path: string, init: RequestInit): Response {
    const action = path.split('/').pop() ?? '';
    const scripted = this.scripted.get(action);
    if (scripted) return json(scripted.status, scripted.body, scripted.headers);
    if (this.mode === 'failing') return json(503, { code: 'busy', message: 'busy' });
    const headers = new Headers(init.headers);
    const body: unknown = init.body ? JSON.parse(String(init.body)) : {};
    if (action === 'submit') return this.submit(body as Submission, headers);
    if (headers.get('X-Lease') !== this.lease) return json(409, lost);
    if (action === 'draft') return this.putDraft(body as Draft, headers.get('If-Match'));
    if (action === 'events')
      return this.addEvents(body as { page_id: string; events: TaskEvent[] });
    if (action === 'skip') {
      this.skipped.push((body as { reason: string }).reason);
      this.lease = 'over';
    }
    return json(200, { seconds: 120, expires_at: '2026-01-01T00:00:00Z' });
  }

  private submit(submission: Submission, headers: Headers): Response {
    if (!this.submissions.has(submission.submission_id)) {
      if (headers.get('X-Lease') !== this.lease) return json(409, lost);
      this.submissions.set(submission.submission_id, submission);
      this.lease = 'over';
    }
    return json(200, { submission_id: submission.submission_id });
  }

  private putDraft(draft: Draft, ifMatch: string | null): Response {
    const version = this.draft?.version ?? 0;
    if (ifMatch !== `"${version}"`) {
      const conflict = { code: 'draft_conflict', message: 'changed', version, draft: this.draft };
      return json(409, conflict);
    }
    this.draft = { ...draft, version: version + 1 };
    return json(200, { version: version + 1 });
  }

  private addEvents({ page_id, events }: { page_id: string; events: TaskEvent[] }): Response {
    for (const event of events) this.events.set(`${page_id}/${event.seq}`, event);
    return json(200, {});
  }
}

const lost = { code: 'lease_lost', message: 'somebody else has it' };

function json(status: number, body: object, headers: Record<string, string> = {}): Response {
  return new Response(JSON.stringify(body), { status, headers });
}

export function object(id: string, counts = '04'): Obj {
  return {
    id,
    proposal: false,
    rle: { size: [2, 2], counts },
    predicted_iou: null,
    prompts: [],
    decoder: null,
    accepted: null,
  };
}

export function draftOf(...ids: string[]): Omit<Draft, 'version'> {
  return { objects: ids.map((id) => object(id)), deleted: [], exhaustive: false, current: null };
}

export function taskOf(draft: Draft | null = null, id = '7'): Task {
  return {
    id,
    campaign: { id: 'c', name: 'c', stage: 'manual', instructions: '', model: 'm', model_id: 'm1' },
    image: { id: '9', width: 2, height: 2, pixels: '/p', preview: '/v', embedding: '/e' },
    proposals: [],
    draft,
    returned: null,
    decoder: '/d',
  };
}

export function leaseOf(task: Task, lease_id = 'lease-1'): Lease {
  return { task, lease_id, seconds: 120, expires_at: '2026-01-01T00:00:00Z' };
}
