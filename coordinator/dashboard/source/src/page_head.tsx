// The head of a page: the way back, the heading, and what stands beside it.
import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";
import { useApp } from "./context";
import { href } from "./route";

interface PageHeadProps {
  title: string;
  /** What the page is about, in a sentence. */
  lead?: string;
  /** The page of all things of this kind, by its path and its title; then the title is a name that may be long. */
  back?: readonly [path: string, title: string];
  /** Stands in a row under the heading. */
  children?: ComponentChildren;
}

export function PageHead({ title, lead, back, children }: PageHeadProps) {
  const { heading } = useApp();
  useEffect(() => {
    heading.set(title);
    return () => heading.set(null);
  }, [heading, title]);

  return (
    <div class="page-head">
      {back !== undefined && (
        <p class="breadcrumbs">
          <a href={href([back[0]])}>{back[1]}</a>
        </p>
      )}
      <h1 tabIndex={-1} class={back === undefined ? "" : "name"}>
        {title}
      </h1>
      {lead !== undefined && <p class="lead">{lead}</p>}
      {children !== undefined && <div class="head-row">{children}</div>}
    </div>
  );
}
