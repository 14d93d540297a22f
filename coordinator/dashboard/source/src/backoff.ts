const FIRST = 0.5;
const LONGEST = 15;

/** Seconds to wait before the next try; spread out, so that a thousand dashboards do not knock at once. */
export class Backoff {
  private tries = 0;

  next(): number {
    const most = Math.min(LONGEST, FIRST * 2 ** this.tries);
    this.tries += 1;
    return most * (0.5 + Math.random() / 2);
  }

  reset(): void {
    this.tries = 0;
  }
}
