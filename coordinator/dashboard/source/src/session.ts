// One WebSocket session of either channel: `hello` first, answers found by their `ref`, pushes apart.
import type { WireError } from "./wire";

const PROTOCOL = 1;
const SUBPROTOCOL = "coordinator.v1";
/** Milliseconds after which a connection that has not answered a request is given up. */
const ANSWER_TIMEOUT_MS = 15_000;
/** Close codes from this one on say that another attempt makes no sense. */
const FIRST_FINAL_CLOSE_CODE = 4500;
/** The close code of a connection that ended without a closing handshake. */
const ABNORMAL_CLOSE_CODE = 1006;

/** The server has refused a request. */
export class RequestRefused extends Error {
  constructor(readonly error: WireError) {
    super(error.message);
  }

  get code(): string {
    return this.error.code;
  }
}

/** The connection ended before the answer came. */
export class ConnectionLost extends Error {
  constructor(
    readonly closeCode: number,
    reason: string,
  ) {
    super(reason || "The connection was lost.");
  }

  get final(): boolean {
    return this.closeCode >= FIRST_FINAL_CLOSE_CODE;
  }
}

type Message = Record<string, unknown> & { type: string; ref?: number };

interface PendingRequest {
  resolve(message: Message): void;
  reject(failure: Error): void;
}

/** Functions that a session calls. */
export interface SessionHandlers {
  /** A message came that answers no request. */
  onPush(message: Message): void;
  /** A message of any kind came. */
  onMessage(): void;
  /** The session ended; called once, with the last refusal if there was one. */
  onEnd(lost: ConnectionLost, refusal: WireError | null): void;
}

export class Session {
  private readonly socket: WebSocket;
  private readonly pending = new Map<number, PendingRequest>();
  private lastRef = 0;
  private lastRefusal: WireError | null = null;
  private readonly opened: Promise<void>;
  private ended = false;

  constructor(
    channel: "stats" | "admin",
    private readonly handlers: SessionHandlers,
  ) {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    this.socket = new WebSocket(`${scheme}//${location.host}/v1/${channel}`, SUBPROTOCOL);

    this.opened = new Promise((resolve, reject) => {
      this.socket.addEventListener("open", () => resolve());
      this.socket.addEventListener("close", () => reject(new ConnectionLost(ABNORMAL_CLOSE_CODE, "")));
    });
    this.opened.catch(() => undefined); // `request` rejects with it, and `onEnd` tells it

    this.socket.addEventListener("message", (event) => {
      handlers.onMessage();
      this.receive(JSON.parse(event.data as string) as Message);
    });
    this.socket.addEventListener("close", (event) => this.finish(new ConnectionLost(event.code, event.reason)));
  }

  /** Send a request and return its answer.  Rejects with `RequestRefused` or `ConnectionLost`. */
  async request(type: string, fields: object = {}): Promise<Message> {
    await this.opened;

    this.lastRef += 1;
    const ref = this.lastRef;
    const answer = new Promise<Message>((resolve, reject) => this.pending.set(ref, { resolve, reject }));
    this.socket.send(JSON.stringify({ type, ref, ...fields }));

    const timer = setTimeout(() => this.close(), ANSWER_TIMEOUT_MS);
    try {
      return await answer;
    } finally {
      clearTimeout(timer);
    }
  }

  hello(token: string | null): Promise<Message> {
    return this.request("hello", { protocol: PROTOCOL, ...(token ? { token } : {}) });
  }

  /** End the session; pending requests are rejected at once, not after a handshake that may never come. */
  close(): void {
    this.socket.close(1000);
    this.finish(new ConnectionLost(ABNORMAL_CLOSE_CODE, ""));
  }

  private receive(message: Message): void {
    const request = message.ref === undefined ? undefined : this.pending.get(message.ref);
    if (request === undefined || message.ref === undefined) {
      if (message.type !== "error") this.handlers.onPush(message);
      return;
    }

    this.pending.delete(message.ref);
    if (message.type === "error") {
      this.lastRefusal = message as unknown as WireError;
      request.reject(new RequestRefused(this.lastRefusal));
    } else request.resolve(message);
  }

  private finish(lost: ConnectionLost): void {
    if (this.ended) return;
    this.ended = true;

    for (const request of this.pending.values()) request.reject(lost);
    this.pending.clear();
    this.handlers.onEnd(lost, this.lastRefusal);
  }
}
