import { Cell } from "./cell";

export interface Toast {
  id: number;
  text: string;
}

const SHOWN = 8_000;

/** Short messages about what was done; read out by screen readers, gone after a while. */
export class Toasts {
  readonly shown = new Cell<readonly Toast[]>([]);
  private ids = 0;

  add(text: string): void {
    this.ids += 1;
    const toast = { id: this.ids, text };
    this.shown.set([...this.shown.value, toast]);
    setTimeout(() => this.shown.set(this.shown.value.filter((one) => one !== toast)), SHOWN);
  }
}
