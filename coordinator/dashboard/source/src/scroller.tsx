// What is wider than its place, and scrolls there.
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";

/** A region that scrolls sideways.  Its edges fade where there is more: phones show no scroll bar until one scrolls. */
export function Scroller({ label, children }: { label: string; children: ComponentChildren }) {
  const region = useRef<HTMLDivElement>(null);

  useEffect(() => {
    const element = region.current;
    if (element === null) return;

    const update = (): void => {
      element.dataset.more = hiddenSides(element.scrollLeft, element.scrollWidth, element.clientWidth);
    };
    const resizing = new ResizeObserver(update);
    for (const observed of [element, ...element.children]) resizing.observe(observed);
    element.addEventListener("scroll", update, { passive: true });
    return () => {
      resizing.disconnect();
      element.removeEventListener("scroll", update);
    };
  }, []);

  return (
    <div ref={region} class="scroller" role="region" aria-label={label} tabIndex={0}>
      {children}
    </div>
  );
}

/** The sides on which something is hidden; pixels may be parts of one. */
export function hiddenSides(scrolled: number, whole: number, shown: number): "none" | "left" | "right" | "both" {
  const left = scrolled > 1;
  const right = whole - shown - scrolled > 1;
  return left && right ? "both" : left ? "left" : right ? "right" : "none";
}
