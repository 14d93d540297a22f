// What an operator's or admin's token may do from here: one request, one session of the admin channel.
import { Session } from "./socket";

export interface Operation {
  /** The request of the admin channel. */
  type:
    | "service.pause"
    | "service.resume"
    | "bucket.release"
    | "client.activate"
    | "client.deactivate"
    | "node.drain";
  fields: Record<string, string>;
}

/** Send it.  Rejects with `Refused` or `Cut`. */
export async function operate(token: string, operation: Operation): Promise<Record<string, unknown>> {
  const nobody = (): void => undefined;
  const session = new Session("admin", { push: nobody, heard: nobody, ended: nobody });
  try {
    await session.hello(token);
    return await session.ask(operation.type, operation.fields);
  } finally {
    session.end();
  }
}
