"""What a service is made of, and the door through which plugins come.

A plugin is a class with a name, a title, the shape of its result, the shape of what a client tells when it joins,
and, if the shape alone is not enough, a `check`.  It is found by its entry point in the group
`coordinator.services`; those that ship with this package use the same door.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Annotated, Any, ClassVar

import msgspec

from coordinator.errors import BadMessage, BadResult, ConfigError
from coordinator.model import ItemId

GROUP = "coordinator.services"


@dataclass(frozen=True, slots=True)
class Item:
    """An item as a plugin sees it."""

    item: ItemId
    key: str
    attributes: dict[str, Any]


class NoProfile(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """For services to which a client tells nothing about itself."""


class Plugin:
    """The contract of a service; a plugin derives from it and overrides what it needs.

    `Result` is the shape of one result without `item`, `Profile` that of the profile, each a msgspec.Struct that
    forbids unknown fields.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    Profile: ClassVar[type[msgspec.Struct]] = NoProfile
    Result: ClassVar[type[msgspec.Struct]]

    def select(self, item: Item) -> bool:
        """Whether this item concerns the service; asked once, when the item is added."""
        return True

    @property
    def selects(self) -> bool:
        """Whether `select` was overridden; else it is not asked."""
        return type(self).select is not Plugin.select


@dataclass(frozen=True, slots=True)
class Rows:
    """The results of one submit, read: (item, value as JSON text) in the order they came in."""

    rows: list[tuple[ItemId, str]]




_ItemId = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]

_ITEM_PREFIX = re.compile(rb'^\{"item":-?\d+,?')


class Reader:
    """Reads the raw `results` of submits for one plugin.

    The good submit is decoded in one pass into rows of the plugin's own type, with `item` in front; what fails is
    looked at again, result by result, so that each bad one can be named.
    """

    def __init__(self, plugin: Plugin) -> None:
        self.plugin = plugin
        row = msgspec.defstruct(
            f"{plugin.Result.__name__}Row",
            [("item", _ItemId), *_fields(plugin.Result)],
            forbid_unknown_fields=True,
            frozen=True,
            omit_defaults=True,
        )
        self._rows: msgspec.json.Decoder[list[Any]] = msgspec.json.Decoder(list[row])  # type: ignore[valid-type]  # made above, for this plugin
        self._plain: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
        self._encoder = msgspec.json.Encoder()

    def read(self, raw: bytes | memoryview | msgspec.Raw) -> Rows:
        """The results of one submit.

        Raises:
            BadMessage: it is no array of objects with an integer `item`, or an item stands in it twice.
            BadResult: a result has not the service's shape; `detail.errors` names each, with its reason.
        """
        try:
            decoded = self._rows.decode(raw)
        except (msgspec.MsgspecError, RecursionError):
            decoded = self._explain(raw)
        encode = self._encoder.encode
        rows = [
            (one.item, "{" + _ITEM_PREFIX.sub(b"", encode(one), count=1).decode()) for one in decoded
        ]
        if len({item for item, _ in rows}) != len(rows):
            raise BadMessage("An item stands twice among the results.", detail={"path": "$.results"})
        return Rows(rows)

    def items(self, raw: bytes | memoryview | msgspec.Raw) -> list[ItemId]:
        """Only which items a submit is about.

        Raises:
            BadMessage: as `read`.
        """
        generic = self._generic(raw)
        for place, one in enumerate(generic):
            item = one.get("item") if isinstance(one, dict) else None
            if not isinstance(item, int) or isinstance(item, bool) or abs(item) >= 2**63:
                path = f"$.results[{place}]" + (".item" if isinstance(one, dict) else "")
                raise BadMessage("A result is an object with an integer `item`.", detail={"path": path})
        return [ItemId(one["item"]) for one in generic]

    def _generic(self, raw: bytes | memoryview | msgspec.Raw) -> list[Any]:
        try:
            generic = self._plain.decode(raw)
        except (msgspec.MsgspecError, RecursionError) as failure:
            raise BadMessage(f"Not JSON: {failure}.", detail={"path": "$.results"}) from None
        if not isinstance(generic, list):
            raise BadMessage("`results` is an array.", detail={"path": "$.results"})
        return generic

    def _explain(self, raw: bytes | memoryview | msgspec.Raw) -> list[Any]:
        self.items(raw)
        errors = []
        for place, one in enumerate(self._generic(raw)):
            value = {name: field for name, field in one.items() if name != "item"}
            try:
                msgspec.convert(value, self.plugin.Result)
            except msgspec.ValidationError as failure:
                what, _, path = str(failure).partition(" - at `$")
                where = f"$.results[{place}]{path.rstrip('`')}"
                errors.append({"item": one["item"], "reason": what, "path": where})
        if not errors:  # the whole is wrong though each part is right: cannot be, and must not pass
            raise BadMessage("The results cannot be read.", detail={"path": "$.results"})
        raise BadResult(
            f"{len(errors)} of the results have not the shape of {self.plugin.name}.",
            detail={"errors": errors, "path": errors[0]["path"]},
        )


def _fields(struct: type[msgspec.Struct]) -> Sequence[Any]:
    found: list[Any] = []
    for field in msgspec.structs.fields(struct):
        if field.required:
            found.append((field.encode_name, field.type))
        elif field.default_factory is not msgspec.NODEFAULT:
            found.append((field.encode_name, field.type, msgspec.field(default_factory=field.default_factory)))
        else:
            found.append((field.encode_name, field.type, field.default))
    return found


def load_plugins() -> dict[str, Plugin]:
    """All installed plugins by name.

    Raises:
        ConfigError: two have the same name, or one cannot be loaded.
    """
    found: dict[str, Plugin] = {}
    for point in entry_points(group=GROUP):
        try:
            plugin = point.load()()
        except (ImportError, AttributeError, TypeError) as failure:
            raise ConfigError(f"The service plugin {point.value} cannot be loaded: {failure}") from failure
        if not isinstance(plugin, Plugin):
            raise ConfigError(f"The service plugin {point.value} does not derive from Plugin.")
        if plugin.name in found:
            raise ConfigError(f"Two service plugins are named {plugin.name}.")
        found[plugin.name] = plugin
    return found
