// Links to single items and buckets.
import { Name } from "./components";
import type { ItemNumber } from "./item_number";
import { href } from "./route";

export function ItemLink({ item, name }: { item: ItemNumber; name: string }) {
  return (
    <a href={href(["items", String(item)])}>
      <Name text={name} />
    </a>
  );
}

export function BucketLink({ id }: { id: string }) {
  return (
    <a href={href(["buckets", id])}>
      <code>
        <Name text={id} />
      </code>
    </a>
  );
}
