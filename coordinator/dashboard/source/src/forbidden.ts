// Content for which the server refuses a whole message, and not the one item that has it.

/** How deep a message may nest, less the levels in which an item of `item.add` stands. */
const MAX_ITEM_DEPTH = 14;

/** Return why the server would refuse the whole message for this item; null if it would not. */
export function forbiddenIn(value: unknown, depth = 1): string | null {
  if (typeof value === "string") {
    return /\0/.test(value) || /\p{Surrogate}/u.test(value) ? "U+0000 and lone surrogates are refused." : null;
  }
  if (typeof value === "number" && !Number.isFinite(value)) return "a number is out of range";
  if (typeof value !== "object" || value === null) return null;
  if (depth > MAX_ITEM_DEPTH) return "A message nests no deeper than 16.";
  for (const [name, inner] of Object.entries(value)) {
    const fault = forbiddenIn(name) ?? forbiddenIn(inner, depth + 1);
    if (fault !== null) return fault;
  }
  return null;
}
