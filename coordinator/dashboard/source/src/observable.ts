import { useEffect, useState } from "preact/hooks";

/** A value that tells its listeners when it changes. */
export class Observable<T> {
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

  /** Call the listener after each change, until the returned function is called. */
  listen(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
}

/** Return the value of an observable; the component is drawn again when it changes. */
export function useObservable<T>(observable: Observable<T>): T {
  const [, redraw] = useState({});

  useEffect(() => {
    let drawnValue = observable.value;
    const stopListening = observable.listen(() => {
      if (!Object.is(drawnValue, observable.value)) {
        drawnValue = observable.value;
        redraw({});
      }
    });

    redraw({}); // it may have changed between the drawing and now
    return stopListening;
  }, [observable]);

  return observable.value;
}
