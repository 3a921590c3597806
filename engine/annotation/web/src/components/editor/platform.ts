// Which names the keys have here.

export function isMac(): boolean {
  return /mac|iphone|ipad/i.test(navigator.platform);
}
