// One WebSocket session of either channel: hello first, answers to their requests by `ref`, pushes apart.
import type { WireError } from "./wire";

const PROTOCOL = 1;
const SUBPROTOCOL = "coordinator.v1";
const PATIENCE = 15_000;

/** The server has refused a request. */
export class Refused extends Error {
  constructor(readonly error: WireError) {
    super(error.message);
  }

  get code(): string {
    return this.error.code;
  }
}

/** The connection ended before the answer came. */
export class Cut extends Error {
  constructor(
    readonly closeCode: number,
    reason: string,
  ) {
    super(reason || "The connection was lost.");
  }

  /** Close codes from 4500 on say that trying again makes no sense. */
  get final(): boolean {
    return this.closeCode >= 4500;
  }
}

type Message = Record<string, unknown> & { type: string; ref?: number };
interface Waiting {
  resolve(message: Message): void;
  reject(failure: Error): void;
}

export interface Ears {
  push(message: Message): void;
  heard(): void;
  ended(cut: Cut, refusal: WireError | null): void;
}

export class Session {
  private readonly socket: WebSocket;
  private readonly waiting = new Map<number, Waiting>();
  private refs = 0;
  private refusal: WireError | null = null;
  private readonly opened: Promise<void>;
  private over = false;

  constructor(
    channel: "stats" | "admin",
    private readonly ears: Ears,
  ) {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    this.socket = new WebSocket(`${scheme}//${location.host}/v1/${channel}`, SUBPROTOCOL);
    this.opened = new Promise((resolve, reject) => {
      this.socket.addEventListener("open", () => resolve());
      this.socket.addEventListener("close", () => reject(new Cut(1006, "")));
    });
    this.opened.catch(() => undefined); // told to whoever waits for it, and by `ended`
    this.socket.addEventListener("message", (event) => {
      ears.heard();
      this.take(JSON.parse(event.data as string) as Message);
    });
    this.socket.addEventListener("close", (event) => this.finish(new Cut(event.code, event.reason)));
  }

  private take(message: Message): void {
    const waiting = message.ref === undefined ? undefined : this.waiting.get(message.ref);
    if (waiting === undefined || message.ref === undefined) {
      if (message.type !== "error") this.ears.push(message);
      return;
    }
    this.waiting.delete(message.ref);
    if (message.type === "error") {
      this.refusal = message as unknown as WireError;
      waiting.reject(new Refused(this.refusal));
    } else waiting.resolve(message);
  }

  private finish(cut: Cut): void {
    if (this.over) return;
    this.over = true;
    for (const one of this.waiting.values()) one.reject(cut);
    this.waiting.clear();
    this.ears.ended(cut, this.refusal);
  }

  /** Send a request; the promise is its answer.  Rejects with `Refused` or `Cut`. */
  async ask(type: string, fields: object = {}): Promise<Message> {
    await this.opened;
    this.refs += 1;
    const ref = this.refs;
    const answer = new Promise<Message>((resolve, reject) => this.waiting.set(ref, { resolve, reject }));
    this.socket.send(JSON.stringify({ type, ref, ...fields }));
    const timer = setTimeout(() => this.end(), PATIENCE); // a connection that answers nothing is none
    try {
      return await answer;
    } finally {
      clearTimeout(timer);
    }
  }

  hello(token: string | null): Promise<Message> {
    return this.ask("hello", { protocol: PROTOCOL, ...(token ? { token } : {}) });
  }

  /** End it; whatever waits for an answer is told at once, not after a handshake that may never come. */
  end(): void {
    this.socket.close(1000);
    this.finish(new Cut(1006, ""));
  }
}
