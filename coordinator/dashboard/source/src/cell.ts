import { useEffect, useState } from "preact/hooks";

/** A value that tells its listeners when it changes. */
export class Cell<T> {
  private listeners = new Set<() => void>();

  constructor(private current: T) {}

  get value(): T {
    return this.current;
  }

  set(next: T): void {
    if (Object.is(next, this.current)) return;
    this.current = next;
    for (const listener of [...this.listeners]) listener();
  }

  listen(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
}

/** The value of a cell; the component is drawn again when it changes. */
export function useCell<T>(cell: Cell<T>): T {
  const [, redraw] = useState({});
  useEffect(() => {
    let seen = cell.value;
    const stop = cell.listen(() => {
      if (!Object.is(seen, cell.value)) {
        seen = cell.value;
        redraw({});
      }
    });
    redraw({}); // it may have changed between the drawing and now
    return stop;
  }, [cell]);
  return cell.value;
}
