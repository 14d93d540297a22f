import { Cell } from "./cell";

export interface Toast {
  id: number;
  text: string;
  bad: boolean;
}

const SHOWN = 8_000;

/** Short messages about what was done; read out by screen readers, gone after a while. */
export class Toasts {
  readonly shown = new Cell<readonly Toast[]>([]);
  private ids = 0;

  add(text: string, bad = false): void {
    this.ids += 1;
    const toast = { id: this.ids, text, bad };
    this.shown.set([...this.shown.value, toast]);
    setTimeout(() => this.dismiss(toast.id), SHOWN);
  }

  dismiss(id: number): void {
    this.shown.set(this.shown.value.filter((toast) => toast.id !== id));
  }
}
