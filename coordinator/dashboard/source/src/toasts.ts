import { Observable } from "./observable";

export interface Toast {
  id: number;
  text: string;
}

const SHOWN_MS = 8_000;

/** Short messages about what was done; screen readers read them out, and they go after a while. */
export class Toasts {
  readonly shown = new Observable<readonly Toast[]>([]);
  private lastId = 0;

  add(text: string): void {
    this.lastId += 1;
    const toast = { id: this.lastId, text };
    this.shown.set([...this.shown.value, toast]);
    setTimeout(() => this.shown.set(this.shown.value.filter((other) => other !== toast)), SHOWN_MS);
  }
}
