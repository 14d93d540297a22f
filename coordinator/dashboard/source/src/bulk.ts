// The same request for many things, one after the other, a few at a time.
import { RequestRefused } from "./session";

/** Requests that are under way at the same time. */
const AT_ONCE = 8;
/** Failures whose texts are kept. */
const FAILURES_KEPT = 5;

export interface BulkProgress {
  done: number;
  failed: number;
  /** The first failures, in words. */
  failures: readonly string[];
}

/** Do a step for each name, until `isStopped`; one that the server refuses does not end the others. */
export async function forEachName(
  names: readonly string[],
  step: (name: string) => Promise<unknown>,
  { onProgress, isStopped }: { onProgress(progress: BulkProgress): void; isStopped(): boolean },
): Promise<BulkProgress> {
  let progress: BulkProgress = { done: 0, failed: 0, failures: [] };
  let next = 0;

  const work = async (): Promise<void> => {
    while (next < names.length && !isStopped()) {
      const name = names[next] as string;
      next += 1;
      try {
        await patiently(() => step(name));
        progress = { ...progress, done: progress.done + 1 };
      } catch (failure) {
        if (!(failure instanceof RequestRefused)) throw failure;
        const failures = [...progress.failures, `${name}: ${failure.message}`].slice(0, FAILURES_KEPT);
        progress = { ...progress, failed: progress.failed + 1, failures };
      }
      onProgress(progress);
    }
  };

  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return progress;
}

/** Do a step; where the server says that it was too much at a time, do it again when it says. */
async function patiently(step: () => Promise<unknown>): Promise<void> {
  for (;;) {
    try {
      await step();
      return;
    } catch (failure) {
      if (!(failure instanceof RequestRefused) || failure.code !== "rate_limited") throw failure;
      await new Promise((resolve) => setTimeout(resolve, (failure.error.retry_after ?? 1) * 1000));
    }
  }
}
