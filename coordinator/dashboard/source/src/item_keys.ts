// The form by which keys are compared, as `coordinator/keys.py` has it.

export type KeyForm = "handle" | "exact";

const HOLDS_HANDLE =
  /^(?:@?([A-Za-z0-9_]{1,15})|https?:\/\/(?:www\.|m\.|mobile\.)?(?:x|twitter)\.com\/([A-Za-z0-9_]{1,15})\/?(?:\?[^\n]*)?)$/i;

/** The canonical form of a key that the server has taken: two keys are the same if theirs are equal. */
export function canonical(key: string, form: KeyForm): string {
  const given = key.normalize("NFC");
  const found = form === "handle" ? HOLDS_HANDLE.exec(given) : null;
  return found === null ? given : (found[1] ?? found[2] ?? given).toLowerCase();
}
