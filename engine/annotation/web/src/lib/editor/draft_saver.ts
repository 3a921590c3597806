// Hands drafts over a moment after the last change: encoding masks can wait until the hand rests, and a
// crash costs a quarter of a second.

const DELAY_MS = 250;

export class DraftSaver {
  private timer: ReturnType<typeof setTimeout> | null = null;

  constructor(private readonly save: () => void) {}

  soon(): void {
    this.timer ??= setTimeout(() => this.flush(), DELAY_MS);
  }

  /** Save now what waits; nothing when nothing does. */
  flush(): void {
    if (this.timer === null) return;
    clearTimeout(this.timer);
    this.timer = null;
    this.save();
  }
}
