"""Decode the raw `results` of submits."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from operator import attrgetter
from typing import Annotated, Any, Protocol

import msgspec

from coordinator.errors import BadMessage, BadResult
from coordinator.model import ItemId, JsonObject

MAX_CACHED_VALUES = 1000
"""Different values of a result up to which the JSON texts of all are kept."""

Raw = bytes | memoryview | msgspec.Raw


class _OnlyItem(msgspec.Struct):
    """Of a result its item; what else is in it is passed over."""

    item: Annotated[int, msgspec.Meta(ge=-(2**63) + 1, le=2**63 - 1)]


_items = msgspec.json.Decoder(list[_OnlyItem]).decode

_results = msgspec.json.Decoder(list[msgspec.Raw]).decode

_PLACE = re.compile(r" - at `\$(?P<inner>\[[^`]*)`$")

_ItemId = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]

MAX_NAMED_ERRORS = 100
"""Bad results, or items, of a submit that an error names; it counts the rest, so that it stays small."""

MAX_REASON_LENGTH = 500
"""Characters of the reason that an error gives for a bad result."""

MAX_EXPLAINED = 10_000
"""Results of a bad submit that are looked at one by one, which takes some milliseconds for a thousand."""

MAX_LABELS = 16
"""Different labels that a plugin may give to results."""

MAX_LABEL_LENGTH = 64
"""Characters."""


@dataclass(frozen=True, slots=True)
class DecodedResults:
    """The results of one submit, in the order of the submit.

    `rows` are pairs of item and value as JSON text; `parts` are the same for results that leave their item unsettled.
    `labels` counts `rows` by the plugin's label.  `decoded` has all results, parts too, as objects of the plugin's own
    type; it is empty if the plugin has no hook that gets them.
    """

    rows: list[tuple[ItemId, str]]
    parts: list[tuple[ItemId, str]] = field(default_factory=list)
    decoded: list[tuple[ItemId, Any]] = field(default_factory=list)
    labels: Counter[str] = field(default_factory=Counter)


class Readable(Protocol):
    """The part of a plugin that a reader uses."""

    @property
    def service(self) -> str: ...

    @property
    def Result(self) -> type[msgspec.Struct]: ...

    @property
    def checks(self) -> bool: ...

    @property
    def stores(self) -> bool: ...

    @property
    def discovers(self) -> bool: ...

    @property
    def built_in(self) -> bool: ...

    @property
    def labels(self) -> bool: ...

    def label(self, result: Any) -> str: ...

    def is_part(self, result: Any) -> bool: ...


class Reader:
    """Decodes results for one plugin.

    A good submit is decoded in one pass into rows of the plugin's own type, with `item` in front.  A submit that fails
    is decoded again, result by result, so that each bad one can be named.
    """

    def __init__(self, plugin: Readable) -> None:
        self.plugin = plugin
        # The hooks of a plugin may use methods of its own type; the built-in labels need only the fields.
        gets_results = plugin.checks or plugin.stores or plugin.discovers
        self._wanted = gets_results or (plugin.labels and not plugin.built_in)
        self._plain: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
        self._encode = msgspec.json.Encoder().encode
        self._known: dict[Any, str] = {}
        """The JSON texts of all values, if there are few: a look-up is cheaper than encoding."""
        self._value: Callable[[Any], Any] = attrgetter("item")
        self._row: Callable[[Raw], Any] = self._plain.decode
        self._rows = self._decoder()

    def _decoder(self) -> Callable[[Raw], list[Any]]:
        """Return the function that decodes a good submit in one pass."""
        shape = self.plugin.Result
        post = {"__post_init__": shape.__post_init__} if hasattr(shape, "__post_init__") else None
        row = msgspec.defstruct(
            f"{shape.__name__}Row",
            [("item", _ItemId), *_fields(shape)],
            namespace=post,
            forbid_unknown_fields=True,
            frozen=True,
            gc=False,  # what is decoded refers to nothing that refers to it
            omit_defaults=True,
        )

        choices = _choices(shape)
        if choices:
            self._value = attrgetter(*shape.__struct_encode_fields__)
            self._known = {
                self._value(example): _without_item(self._encode(example).decode())
                for example in (row(0, *values) for values in product(*choices))
            }
        self._row = msgspec.json.Decoder(row).decode
        return msgspec.json.Decoder(list[row]).decode  # type: ignore[valid-type]  # made above, for this plugin

    def read(self, raw: Raw) -> DecodedResults:
        """Decode the results of one submit.

        Raises:
            BadMessage: they are not an array of objects with an integer `item`, or an item is in it twice.
            BadResult: a result does not have the service's shape; `detail.errors` names each, with its reason.
        """
        try:
            decoded = self._rows(raw)
        except (msgspec.MsgspecError, RecursionError):
            decoded = self._explain(raw)

        known, value, encode = self._known, self._value, self._encode
        items = [row.item for row in decoded]
        refuse_repeated_items(items)
        if known:
            texts = [known[value(row)] for row in decoded]
        else:
            texts = [_without_item(encode(row).decode()) for row in decoded]
        rows = list(zip(items, texts, strict=True))
        if not self._wanted:
            return DecodedResults(rows, labels=self._labels(texts, decoded))

        shape = self.plugin.Result
        names = list(zip(shape.__struct_fields__, shape.__struct_encode_fields__, strict=True))
        results = [(row.item, shape(**{name: getattr(row, sent) for name, sent in names})) for row in decoded]
        parts = {item for item, result in results if self.plugin.is_part(result)}
        return DecodedResults(
            [row for row in rows if row[0] not in parts],
            [row for row in rows if row[0] in parts],
            results,
            self._labels(*_whole(rows, results, parts)),
        )

    def _labels(self, values: list[str], results: Sequence[Any]) -> Counter[str]:
        """Count results by their label; `values` are the same results as JSON."""
        labels: Counter[str] = Counter()
        if not self.plugin.labels:
            return labels

        different = dict.fromkeys(values)  # few values differ, and counting equal ones is ten times as fast
        if len(different) <= MAX_LABELS:
            counted = {value: values.count(value) for value in different}
            examples = {value: results[values.index(value)] for value in different}
        else:
            counted = Counter(values)
            examples = dict(zip(values, results, strict=True))
        for value, times in counted.items():
            labels[self.plugin.label(examples[value])] += times

        if len(labels) > MAX_LABELS or not all(
            isinstance(name, str) and len(name) <= MAX_LABEL_LENGTH for name in labels
        ):
            raise TypeError(f"label answered {list(labels)[:3]!r}…; it answers one of a few short words")
        return labels

    def items(self, raw: Raw) -> list[ItemId]:
        """Return only the items of a submit's results.

        Raises:
            BadMessage: they are not an array of objects with an integer `item`.
        """
        try:
            return [ItemId(row.item) for row in _items(raw)]
        except msgspec.ValidationError as failure:
            place = _PLACE.search(str(failure))
            path = "$.results" + (place["inner"] if place else "")
            if "missing" in str(failure):
                path += ".item"
            array = place is not None
            fault = "A result is an object with an integer `item`." if array else "`results` is an array."
            raise BadMessage(fault, detail={"path": path}) from None
        except (msgspec.MsgspecError, RecursionError) as failure:
            raise BadMessage(f"Not JSON: {failure}.", detail={"path": "$.results"}) from None

    def _generic(self, raw: Raw) -> list[Any]:
        try:
            generic = self._plain.decode(raw)
        except (msgspec.MsgspecError, RecursionError) as failure:
            raise BadMessage(f"Not JSON: {failure}.", detail={"path": "$.results"}) from None
        if not isinstance(generic, list):
            raise BadMessage("`results` is an array.", detail={"path": "$.results"})
        return generic

    def _explain(self, raw: Raw) -> list[Any]:
        """Name each bad result of a submit that could not be decoded in one pass."""
        items = self.items(raw)
        errors = ResultErrors(self.plugin.service)
        # Each for itself, and never as plain objects: a result of a megabyte may hold 300,000 of them.
        for place, result in enumerate(_results(raw)[:MAX_EXPLAINED]):
            try:
                self._row(result)
            except (msgspec.ValidationError, RecursionError) as failure:
                reason, _, inner = str(failure).partition(" - at `$")
                errors.add(items[place], f"$.results[{place}]{inner.rstrip('`')}", reason)

        if not errors:  # beyond the explained ones, or the whole is wrong though each result is right
            raise BadMessage("The results cannot be read.", detail={"path": "$.results"})
        raise errors.error()


def _whole(
    rows: Sequence[tuple[ItemId, str]], results: Sequence[tuple[ItemId, Any]], parts: set[ItemId]
) -> tuple[list[str], list[Any]]:
    """Return the values and the results that are not parts."""
    values = [value for item, value in rows if item not in parts]
    return values, [result for item, result in results if item not in parts]


class ResultErrors:
    """The bad results of one submit: so many are named, with their reasons, and the rest is counted."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._named: list[JsonObject] = []
        self._more = 0

    def __bool__(self) -> bool:
        return bool(self._named)

    @property
    def full(self) -> bool:
        """Whether as many are named as may be, so that the reason of another one need not be found out."""
        return len(self._named) >= MAX_NAMED_ERRORS

    def add(self, item: ItemId, path: str, reason: str) -> None:
        """Name a bad result, or count it if enough are named."""
        if self.full:
            self._more += 1
        else:
            self._named.append({"item": item, "reason": reason[:MAX_REASON_LENGTH], "path": path})

    def count(self) -> None:
        """Count a bad result whose reason was not found out."""
        self._more += 1

    def error(self) -> BadResult:
        """Return the error that refuses the submit."""
        detail: JsonObject = {"errors": self._named, "path": self._named[0]["path"]}
        if self._more:
            detail["more"] = self._more
        count = len(self._named) + self._more
        are, them = ("is", "it") if count == 1 else ("are", "them")
        return BadResult(f"{count} of the results {are} not as {self._service} wants {them}.", detail=detail)


def _without_item(row: str) -> str:
    """Cut `item` from a row: it is the first field, and a number."""
    comma = row.find(",")
    return "{}" if comma < 0 else "{" + row[comma + 1 :]


def refuse_repeated_items(items: Sequence[ItemId]) -> None:
    """Check that no item has two results.

    Raises:
        BadMessage: an item has.
    """
    if len(set(items)) != len(items):
        raise BadMessage("An item stands twice among the results.", detail={"path": "$.results"})


def _choices(shape: type[msgspec.Struct]) -> list[Sequence[str]]:
    """Return the values of each field, if all fields are choices among a few strings; else an empty list."""
    if hasattr(shape, "__post_init__"):  # it may refuse some
        return []
    types = [msgspec.inspect.type_info(field.type) for field in msgspec.structs.fields(shape)]
    choices = [kind.values for kind in types if isinstance(kind, msgspec.inspect.LiteralType)]
    strings = all(isinstance(value, str) for values in choices for value in values)
    few = prod(len(values) for values in choices) <= MAX_CACHED_VALUES
    return choices if choices and len(choices) == len(types) and strings and few else []  # type: ignore[return-value]  # strings


def _fields(struct: type[msgspec.Struct]) -> Sequence[Any]:
    """Return a struct's fields in the form that `msgspec.defstruct` takes."""
    definitions: list[Any] = []
    for info in msgspec.structs.fields(struct):
        if info.required:
            definitions.append((info.encode_name, info.type))
        elif info.default_factory is not msgspec.NODEFAULT:
            default = msgspec.field(default_factory=info.default_factory)
            definitions.append((info.encode_name, info.type, default))
        else:
            definitions.append((info.encode_name, info.type, info.default))
    return definitions
