// Requests that need a token, or try one; each has a session of its own.
import { Session } from "./session";

export interface Operation {
  /** The request of the admin channel. */
  type:
    | "service.pause"
    | "service.resume"
    | "service.add"
    | "service.configure"
    | "item.prioritize"
    | "item.retry"
    | "bucket.release"
    | "client.activate"
    | "client.deactivate"
    | "node.drain"
    | "token.issue"
    | "token.revoke";
  fields: Record<string, unknown>;
}

/** Send the request and return its answer.  Rejects with `RequestRefused` or `ConnectionLost`. */
export function operate(token: string, operation: Operation): Promise<Record<string, unknown>> {
  return inSession("admin", token, (session) => session.request(operation.type, operation.fields));
}

/** Do several requests in one session of the admin channel.  Rejects with `RequestRefused` or `ConnectionLost`. */
export function inAdminSession<T>(token: string, step: (session: Session) => Promise<T>): Promise<T> {
  return inSession("admin", token, step);
}

/** Ask the server whether it takes a token.  Rejects with `RequestRefused` or `ConnectionLost`. */
export function checkToken(token: string): Promise<void> {
  return inSession("stats", token, async () => undefined);
}

async function inSession<T>(
  channel: "stats" | "admin",
  token: string,
  step: (session: Session) => Promise<T>,
): Promise<T> {
  const ignore = (): void => undefined; // the promises below tell everything
  const session = new Session(channel, { onPush: ignore, onMessage: ignore, onEnd: ignore });
  try {
    await session.hello(token);
    return await step(session);
  } finally {
    session.close();
  }
}
