// Numbers and times as people read them; a dash where there is nothing.

const NOTHING = '–';

export function seconds(value: number | null | undefined): string {
  if (value === null || value === undefined) return NOTHING;
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 100) return `${Math.round(value)} s`;
  if (value < 3600) return `${Math.round(value / 60)} min`;
  return `${(value / 3600).toFixed(1)} h`;
}

export function decimal(value: number | null | undefined, digits = 1): string {
  return value === null || value === undefined ? NOTHING : value.toFixed(digits);
}

export function percent(value: number | null | undefined): string {
  return value === null || value === undefined ? NOTHING : `${Math.round(value * 100)} %`;
}

/** 1234567 as "1,234,567": the same in every country, as the page is English. */
export function integer(value: number | null | undefined): string {
  return value === null || value === undefined ? NOTHING : value.toLocaleString('en-US');
}

/** "3 minutes ago", for what is recent; a date for what is not. */
export function ago(iso: string, nowMs: number): string {
  const elapsed = (nowMs - Date.parse(iso)) / 1000;
  if (Number.isNaN(elapsed)) return NOTHING;
  if (elapsed < 90) return 'just now';
  if (elapsed < 3600) return `${Math.round(elapsed / 60)} minutes ago`;
  if (elapsed < 36 * 3600) return `${Math.round(elapsed / 3600)} hours ago`;
  return iso.slice(0, 10);
}

export function plural(n: number, noun: string): string {
  return `${integer(n)} ${noun}${n === 1 ? '' : 's'}`;
}
