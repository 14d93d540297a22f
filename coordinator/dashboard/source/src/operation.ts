// Requests that a token of an operator or an admin allows; each has its own session of the admin channel.
import { Session } from "./session";

export interface Operation {
  /** The request of the admin channel. */
  type: "service.pause" | "service.resume" | "bucket.release" | "client.activate" | "client.deactivate" | "node.drain";
  fields: Record<string, string>;
}

/** Send the request and return its answer.  Rejects with `RequestRefused` or `ConnectionLost`. */
export async function operate(token: string, operation: Operation): Promise<Record<string, unknown>> {
  const ignore = (): void => undefined; // the promises below tell everything
  const session = new Session("admin", { onPush: ignore, onMessage: ignore, onEnd: ignore });
  try {
    await session.hello(token);
    return await session.request(operation.type, operation.fields);
  } finally {
    session.close();
  }
}
