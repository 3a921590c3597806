// How long to wait before trying again: doubling, capped, with jitter so that fifty pages that lost
// the same service do not come back in the same second.

const FIRST_MS = 1_000;
const LONGEST_MS = 60_000;

/**
 * Milliseconds to wait before attempt number `failures + 1`.
 * @param failures how many attempts failed in a row, 1 or more.
 * @param random a number in [0, 1).
 * @param atLeastMs what the service asked for (Retry-After), 0 if nothing.
 */
export function backoffMs(failures: number, random: number, atLeastMs = 0): number {
  const full = Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.max(0, failures - 1));
  return Math.max(atLeastMs, Math.round(full * (0.5 + random / 2)));
}
