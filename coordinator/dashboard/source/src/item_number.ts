// The numbers of items, which other programs may have made as large as the database allows.
import { wholeNumber } from "./exact_json";

/** A number of an item, exact whatever its size. */
export type ItemNumber = number | bigint;

const NUMBER = /^[1-9]\d{0,18}$/;
/** What the server takes, at most. */
const LARGEST = 2n ** 62n;

/** The number of an item that a text is; null for any other text. */
export function itemNumber(text: string): ItemNumber | null {
  return NUMBER.test(text) && BigInt(text) <= LARGEST ? wholeNumber(text) : null;
}
