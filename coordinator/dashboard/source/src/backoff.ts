const FIRST_DELAY_SECONDS = 0.5;
const LONGEST_DELAY_SECONDS = 15;

/** Delays between attempts to connect; random, so that a thousand dashboards do not come back at once. */
export class Backoff {
  private attempts = 0;

  /** Count one attempt more and return the seconds to wait before it. */
  nextDelay(): number {
    const upperBound = Math.min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2 ** this.attempts);
    this.attempts += 1;
    return upperBound * (0.5 + Math.random() / 2);
  }

  reset(): void {
    this.attempts = 0;
  }
}
