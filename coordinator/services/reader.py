"""Reads the raw `results` of submits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from operator import attrgetter
from typing import Annotated, Any, Protocol

import msgspec

from coordinator.errors import BadMessage, BadResult
from coordinator.model import ItemId

MOST_KNOWN = 1000
"""Values of a result whose texts are kept."""

Raw = bytes | memoryview | msgspec.Raw

_ItemId = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


MOST_LABELS = 16
"""Kinds of results that a plugin may tell apart."""

LONGEST_LABEL = 64


@dataclass(frozen=True, slots=True)
class Rows:
    """The results of one submit, read: (item, value as JSON text) in the order they came in.

    `parts` leave their items unsettled; `labels` say how many of the others are of which kind.  `decoded` has the
    results as objects of the plugin's own type, parts too; only for plugins that look at them, and in the order they
    came in.
    """

    rows: list[tuple[ItemId, str]]
    parts: list[tuple[ItemId, str]] = field(default_factory=list)
    decoded: list[tuple[ItemId, Any]] = field(default_factory=list)
    labels: Counter[str] = field(default_factory=Counter)


class Readable(Protocol):
    """What a reader has to know of a plugin."""

    @property
    def service(self) -> str: ...

    @property
    def Result(self) -> type[msgspec.Struct]: ...

    @property
    def checks(self) -> bool: ...

    @property
    def stores(self) -> bool: ...

    @property
    def built_in(self) -> bool: ...

    @property
    def labels(self) -> bool: ...

    def label(self, result: Any) -> str: ...

    def is_part(self, result: Any) -> bool: ...


class Reader:
    """Reads results for one plugin.

    The good submit is decoded in one pass into rows of the plugin's own type, with `item` in front; what fails is
    looked at again, result by result, so that each bad one can be named.
    """

    def __init__(self, plugin: Readable) -> None:
        self.plugin = plugin
        # Only a plugin's own type has whatever else its hooks may look for; ours make do with the fields.
        self._wanted = plugin.checks or plugin.stores or (plugin.labels and not plugin.built_in)
        self._plain: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
        self._encode = msgspec.json.Encoder().encode
        self._known: dict[Any, str] = {}
        """The texts of all values, where there are few: to look one up is cheaper than to encode it."""
        self._value: Callable[[Any], Any] = attrgetter("item")
        self._rows = self._decoder()

    def _decoder(self) -> Callable[[Raw], list[Any]]:
        """What reads a good submit in one pass."""
        shape = self.plugin.Result
        post = {"__post_init__": shape.__post_init__} if hasattr(shape, "__post_init__") else None
        row = msgspec.defstruct(
            f"{shape.__name__}Row",
            [("item", _ItemId), *_fields(shape)],
            namespace=post,
            forbid_unknown_fields=True,
            frozen=True,
            omit_defaults=True,
        )
        choices = _choices(shape)
        if choices:
            self._value = attrgetter(*shape.__struct_encode_fields__)
            self._known = {
                self._value(one): _without_item(self._encode(one).decode())
                for one in (row(0, *values) for values in product(*choices))
            }
        return msgspec.json.Decoder(list[row]).decode  # type: ignore[valid-type]  # made above, for this plugin

    def read(self, raw: Raw) -> Rows:
        """The results of one submit.

        Raises:
            BadMessage: it is no array of objects with an integer `item`, or an item stands in it twice.
            BadResult: a result has not the service's shape; `detail.errors` names each, with its reason.
        """
        try:
            decoded = self._rows(raw)
        except (msgspec.MsgspecError, RecursionError):
            decoded = self._explain(raw)
        known, value, encode = self._known, self._value, self._encode
        if known:
            rows = [(one.item, known[value(one)]) for one in decoded]
        else:
            rows = [(one.item, _without_item(encode(one).decode())) for one in decoded]
        refuse_twice(rows)
        if not self._wanted:
            return Rows(rows, labels=self._labels([value for _, value in rows], decoded))
        shape = self.plugin.Result
        names = list(zip(shape.__struct_fields__, shape.__struct_encode_fields__, strict=True))
        results = [(one.item, shape(**{name: getattr(one, sent) for name, sent in names})) for one in decoded]
        parts = {item for item, result in results if self.plugin.is_part(result)}
        return Rows(
            [one for one in rows if one[0] not in parts],
            [one for one in rows if one[0] in parts],
            results,
            self._labels(*_whole(rows, results, parts)),
        )

    def _labels(self, values: Sequence[str], results: Sequence[Any]) -> Counter[str]:
        """How many of these results, which stand in `values` as JSON, are of which kind."""
        labels: Counter[str] = Counter()
        if not self.plugin.labels:
            return labels
        one_of = dict(zip(values, results, strict=True))
        for value, times in Counter(values).items():  # few differ, and counting equal ones is ten times as fast
            labels[self.plugin.label(one_of[value])] += times
        if len(labels) > MOST_LABELS or not all(isinstance(one, str) and len(one) <= LONGEST_LABEL for one in labels):
            raise TypeError(f"label answered {list(labels)[:3]!r}…; it answers one of a few short words")
        return labels

    def items(self, raw: Raw) -> list[ItemId]:
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

    def _generic(self, raw: Raw) -> list[Any]:
        try:
            generic = self._plain.decode(raw)
        except (msgspec.MsgspecError, RecursionError) as failure:
            raise BadMessage(f"Not JSON: {failure}.", detail={"path": "$.results"}) from None
        if not isinstance(generic, list):
            raise BadMessage("`results` is an array.", detail={"path": "$.results"})
        return generic

    def _explain(self, raw: Raw) -> list[Any]:
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
        raise bad_results(self.plugin.service, errors)


def _whole(
    rows: Sequence[tuple[ItemId, str]], results: Sequence[tuple[ItemId, Any]], parts: set[ItemId]
) -> tuple[list[str], list[Any]]:
    """The values and the results that are no parts."""
    values = [value for item, value in rows if item not in parts]
    return values, [result for item, result in results if item not in parts]


def bad_results(service: str, errors: Sequence[dict[str, Any]]) -> BadResult:
    """The refusal of a submit, with what is wrong with each bad result."""
    return BadResult(
        f"{len(errors)} of the results are not as {service} wants them.",
        detail={"errors": list(errors), "path": errors[0]["path"]},
    )


def _without_item(row: str) -> str:
    """`item` is the first field of a row, and a number."""
    comma = row.find(",")
    return "{}" if comma < 0 else "{" + row[comma + 1 :]


def refuse_twice(rows: Sequence[tuple[ItemId, str]]) -> None:
    """Raises: BadMessage, if an item stands twice among the results."""
    if len({item for item, _ in rows}) != len(rows):
        raise BadMessage("An item stands twice among the results.", detail={"path": "$.results"})


def _choices(shape: type[msgspec.Struct]) -> list[Sequence[str]]:
    """The values of each field, if all fields are choices among a few strings; else nothing."""
    if hasattr(shape, "__post_init__"):  # it may refuse some
        return []
    types = [msgspec.inspect.type_info(one.type) for one in msgspec.structs.fields(shape)]
    choices = [one.values for one in types if isinstance(one, msgspec.inspect.LiteralType)]
    strings = all(isinstance(value, str) for values in choices for value in values)
    few = prod(len(values) for values in choices) <= MOST_KNOWN
    return choices if choices and len(choices) == len(types) and strings and few else []  # type: ignore[return-value]  # strings


def _fields(struct: type[msgspec.Struct]) -> Sequence[Any]:
    found: list[Any] = []
    for one in msgspec.structs.fields(struct):
        if one.required:
            found.append((one.encode_name, one.type))
        elif one.default_factory is not msgspec.NODEFAULT:
            found.append((one.encode_name, one.type, msgspec.field(default_factory=one.default_factory)))
        else:
            found.append((one.encode_name, one.type, one.default))
    return found
