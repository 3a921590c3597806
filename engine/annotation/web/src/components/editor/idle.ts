// Says when a person stops working for a while and when they go on, so that seconds per mask can be told
// from lunch.

const IDLE_MS = 60_000;
const SIGNS = ['pointerdown', 'pointermove', 'keydown', 'wheel'] as const;

export function watchIdleness(say: (kind: 'idle' | 'resume') => void): () => void {
  let idle = false;
  let timer: ReturnType<typeof setTimeout>;
  const rest = (): void => {
    clearTimeout(timer);
    if (idle) return;
    idle = true;
    say('idle');
  };
  let last = 0;
  const alive = (): void => {
    const now = performance.now();
    if (!idle && now - last < 1000) return; // moving pointers come by the hundred
    last = now;
    if (document.visibilityState === 'hidden') return;
    if (idle) say('resume');
    idle = false;
    clearTimeout(timer);
    timer = setTimeout(rest, IDLE_MS);
  };
  const visibility = (): void => (document.visibilityState === 'hidden' ? rest() : alive());
  const stop = new AbortController();
  const listening = { signal: stop.signal, passive: true, capture: true };
  for (const sign of SIGNS) window.addEventListener(sign, alive, listening);
  document.addEventListener('visibilitychange', visibility, listening);
  timer = setTimeout(rest, IDLE_MS);
  return () => {
    clearTimeout(timer);
    stop.abort();
  };
}
