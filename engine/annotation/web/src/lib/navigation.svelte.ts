// Where the page is, as state: components read `navigation.route`, links and code change it.

import { parseRoute, type Route } from './router';

class Navigation {
  route = $state.raw<Route>(parseRoute(location.pathname));

  constructor() {
    addEventListener('popstate', () => (this.route = parseRoute(location.pathname)));
  }

  go(path: string, options: { replace?: boolean } = {}): void {
    if (options.replace) history.replaceState(null, '', path);
    else if (path !== location.pathname) history.pushState(null, '', path);
    this.route = parseRoute(location.pathname);
    scrollTo(0, 0);
  }

  /** For the click handler of the whole page: a plain click on a link of ours stays in the page. */
  follow(event: MouseEvent): void {
    const link = event.target instanceof Element ? event.target.closest('a') : null;
    const modified = event.metaKey || event.ctrlKey || event.shiftKey || event.altKey;
    if (!link || event.defaultPrevented || event.button !== 0 || modified) return;
    if (link.target || link.hasAttribute('download') || link.origin !== location.origin) return;
    if (parseRoute(link.pathname).view === 'unknown') return;
    event.preventDefault();
    this.go(link.pathname);
  }
}

export const navigation = new Navigation();
