// Addresses of the page's views, both ways. The service answers each of them with index.html.

export type Route =
  | { view: 'campaigns' }
  | { view: 'join' }
  | { view: 'people' }
  | { view: 'annotate' | 'review' | 'lead'; campaign: string }
  | { view: 'unknown'; path: string };

export function parseRoute(path: string): Route {
  const parts = path.split('/').filter(Boolean);
  const [view, campaign, ...rest] = parts;
  if (!view) return { view: 'campaigns' };
  if (view === 'join' && !campaign) return { view: 'join' };
  if (view === 'lead' && campaign === 'people' && !rest.length) return { view: 'people' };
  if ((view === 'annotate' || view === 'review' || view === 'lead') && campaign && !rest.length) {
    const name = decoded(campaign);
    if (name) return { view, campaign: name };
  }
  return { view: 'unknown', path };
}

export function hrefOf(route: Exclude<Route, { view: 'unknown' }>): string {
  if (route.view === 'campaigns') return '/';
  if (route.view === 'join') return '/join';
  if (route.view === 'people') return '/lead/people';
  return `/${route.view}/${encodeURIComponent(route.campaign)}`;
}

/** The token of an invite link: `#token=...`, a whole link, or the bare token that somebody pasted. */
export function tokenOf(text: string): string | null {
  const trimmed = text.trim();
  const match = /(?:^|[#&?])token=([^&\s]+)/.exec(trimmed);
  const token = match ? decoded(match[1]!) : trimmed;
  return token && /^[\w.~-]+$/.test(token) ? token : null;
}

function decoded(part: string): string | null {
  try {
    return decodeURIComponent(part);
  } catch {
    return null; // a lone % is no name
  }
}
