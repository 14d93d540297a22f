// One WebSocket session of either channel: `hello` first, answers found by their `ref`, pushes apart.
import { jsonText, parseJson } from "./exact_json";
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

/** The status with which the server answers plain HTTP where a WebSocket would have been welcome. */
const NO_UPGRADE = 426;
const UPGRADE_LOST =
  "The server answers and would take this page in, but no WebSocket gets through: " +
  "a proxy in between has to pass on the headers Upgrade and Connection.";
/** Characters of an answer that are shown: what stands in between may answer with anything. */
const LONGEST_REASON = 1000;

type Channel = "stats" | "admin";
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

/** The address of a channel, beside the page: behind a proxy the page may stand below a path of its own. */
function channelAddress(channel: Channel, scheme: "ws" | "http"): URL {
  const address = new URL(`v1/${channel}`, document.baseURI);
  address.protocol = address.protocol.replace("http", scheme);
  return address;
}

/** Ask why a channel does not open: browsers hide the server's answer to a WebSocket from the page. */
export async function whyNotOpen(channel: Channel): Promise<string> {
  const address = channelAddress(channel, "http");
  address.searchParams.set("origin", location.origin);
  try {
    const answer = await fetch(address, { cache: "no-store", signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS) });
    const plain = answer.headers.get("Content-Type")?.startsWith("text/plain") ?? false;
    const text = plain ? (await answer.text()).trim().slice(0, LONGEST_REASON) : "";
    if (answer.status === NO_UPGRADE) return UPGRADE_LOST;
    return text || `The server, or a proxy before it, answers HTTP ${answer.status}.`;
  } catch {
    return "The server does not answer.";
  }
}

export class Session {
  private readonly socket: WebSocket;
  private readonly pending = new Map<number, PendingRequest>();
  private lastRef = 0;
  private lastRefusal: WireError | null = null;
  private readonly opened: Promise<void>;
  private ended = false;
  private everOpen = false;

  constructor(
    channel: Channel,
    private readonly handlers: SessionHandlers,
  ) {
    this.socket = new WebSocket(channelAddress(channel, "ws"), SUBPROTOCOL);

    this.opened = new Promise((resolve, reject) => {
      this.socket.addEventListener("open", () => {
        this.everOpen = true;
        resolve();
      });
      this.socket.addEventListener("close", () => reject(new ConnectionLost(ABNORMAL_CLOSE_CODE, "")));
    });
    this.opened.catch(() => undefined); // `request` rejects with it, and `onEnd` tells it

    this.socket.addEventListener("message", (event) => {
      handlers.onMessage();
      this.receive(parseJson(event.data as string) as Message);
    });
    this.socket.addEventListener("close", (event) => this.finish(new ConnectionLost(event.code, event.reason)));
  }

  /** Send a request and return its answer.  Rejects with `RequestRefused` or `ConnectionLost`. */
  request(type: string, fields: object = {}, timeoutMs = ANSWER_TIMEOUT_MS): Promise<Message> {
    return this.requestEncoded(type, jsonText(fields), timeoutMs);
  }

  /** Send a request whose fields are an object in JSON already. */
  async requestEncoded(type: string, fields: string, timeoutMs = ANSWER_TIMEOUT_MS): Promise<Message> {
    await this.opened;

    this.lastRef += 1;
    const ref = this.lastRef;
    const answer = new Promise<Message>((resolve, reject) => this.pending.set(ref, { resolve, reject }));
    const head = JSON.stringify({ type, ref });
    this.socket.send(fields === "{}" ? head : `${head.slice(0, -1)},${fields.slice(1)}`);

    const timer = setTimeout(() => this.close(), timeoutMs);
    try {
      return await answer;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Whether the server has let this connection in. */
  get wasOpen(): boolean {
    return this.everOpen;
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
