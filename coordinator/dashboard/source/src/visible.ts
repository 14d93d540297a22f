// Texts of strangers written so that nothing in them is unseen or turns the direction of what stands beside them.
import { options } from "preact";

/** Control characters but for those between words and lines, marks of direction, and characters without a shape. */
const UNSEEN =
  /[\0-\x08\x0e-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\u{e0000}-\u{e007f}]/gu;

/** A text in which such characters stand as escapes, as the commands write them. */
export function visible(text: string): string {
  return text.replace(UNSEEN, (character) => {
    const code = character.codePointAt(0) ?? 0;
    if (code > 0xffff) return `\\U${code.toString(16).padStart(8, "0")}`;
    return code > 0xff ? `\\u${code.toString(16).padStart(4, "0")}` : `\\x${code.toString(16).padStart(2, "0")}`;
  });
}

/** Write every text and every title of the page so; values of fields and addresses stay as they are. */
export function writeVisibly(): void {
  const former = options.vnode;
  options.vnode = (node) => {
    const props: unknown = node.props;
    if (typeof props === "string") (node as { props: unknown }).props = visible(props); // a text is such a node
    else if (typeof node.type === "string" && "title" in node.props && typeof node.props.title === "string") {
      node.props.title = visible(node.props.title);
    }
    former?.(node);
  };
}
