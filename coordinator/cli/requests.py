"""The commands for the requests of the admin channel, one for each, made from the message types.

A field is an option `--field-name`; a list's option is repeated, and may also be named in the singular; an
object is given as JSON.  The subject of the request can be given without its name, as an argument.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

import msgspec
import typer
from msgspec import inspect as shapes
from msgspec import structs

from coordinator.cli.access import (
    AsJson,
    Authority,
    DataFolder,
    Server,
    ServerAccess,
    Token,
    Wide,
    find_server,
    find_token,
)
from coordinator.cli.admin_client import AdminClient, admin_connection
from coordinator.cli.exits import EXIT_REFUSED, EXIT_USAGE, fail, with_exit_codes
from coordinator.cli.export import CsvForm, write_changes, write_export
from coordinator.cli.help_texts import EXAMPLES, FIELD_HELP
from coordinator.cli.output import Output, after_hint
from coordinator.printable import printable
from coordinator.wire.admin import ANSWERS, AdminHello
from coordinator.wire.admin.results import ResultChanges, ResultExport, ResultInvalidate
from coordinator.wire.codec import tag_of
from coordinator.wire.frames import Request
from coordinator.wire.schema import PUBLISHED
from coordinator.wording import counted

OfflineRequest = Callable[[str, Any], Coroutine[Any, Any, dict[str, Any]]]
"""A function that does a request on a database, given its DSN, without a server."""


async def _issue_token(dsn: str, message: Any) -> dict[str, Any]:
    from coordinator.cli.database import issue_token  # with the modules of the server

    return await issue_token(dsn, message)


_OFFLINE: dict[str, OfflineRequest] = {"token.issue": _issue_token}
"""The requests that also work on a database that no server runs on."""

_SUBJECT_FIELDS = (
    "keys",
    "key",
    "items",
    "bucket_id",
    "client_id",
    "token_id",
    "notice_id",
    "text",
    "invalidation_id",
    "service",
    "node",
)
"""The fields that can be the subject of a request: the first of them that it requires is."""

_REFUSES_UNKNOWN = frozenset({"item.prioritize"})
"""Requests that are not done if a key is unknown, though the others are."""

_CONFIRMED_REQUESTS = {
    "item.delete": "Really delete the item and all that belongs to it?",
    "result.invalidate": "",  # which says how many
    "client.erase": "Really erase the client? Its results stay, nobody's; it cannot be undone.",
}
"""The requests that are asked for once more before they are made, and how."""


@dataclass(frozen=True, slots=True)
class RequestField:
    """A field of a request, as a command takes it: `python` is the type that typer reads."""

    name: str
    required: bool
    is_subject: bool
    many: bool
    json: bool
    python: Any

    @property
    def option(self) -> str:
        """The name of the option."""
        return f"--{self.name.replace('_', '-')}"

    def value(self, option: Any, argument: Any) -> Any:
        """Return the field's value, given by option or as the argument; None if it is left out.

        Raises:
            typer.BadParameter: it is required and missing, or it is given twice.
        """
        found = [value for value in (option, argument) if value not in (None, [])]
        if len(found) == 2:
            raise typer.BadParameter("It is given twice.", param_hint=self.option)
        if not found:
            if self.required:
                raise typer.BadParameter("It is missing.", param_hint=self.option)
            return None

        if not self.json:
            return found[0]
        return [self._parsed(text) for text in found[0]] if self.many else self._parsed(found[0])

    def _parsed(self, text: str) -> Any:
        if self.name == "items" and not text.lstrip().startswith("{"):
            return {"key": text}
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError as failure:
            raise typer.BadParameter(f"Expected JSON: {failure}.", param_hint=self.option) from None


def requests_by_command() -> dict[str, list[type[Request]]]:
    """Map the name of each command and of each group of commands to its requests; the groups come last."""
    found: dict[str, list[type[Request]]] = {}
    for request in sorted(ANSWERS, key=lambda request: "." in tag_of(request)):
        if request is not AdminHello:
            found.setdefault(_words(request)[0], []).append(request)
    return found


def add_requests(app: typer.Typer, name: str) -> None:
    """Add a command to `app` for each request of the group, or for the one that is called so."""
    for request in requests_by_command().get(name, ()):
        command = command_for(request, _OFFLINE.get(tag_of(request)))
        app.command(_words(request)[-1], help=_help_text(request))(command)


def fields_of(request: type[Request]) -> list[RequestField]:
    """List the fields of a request, as its command takes them."""
    shape = cast(shapes.StructType, shapes.type_info(request))
    fields = [field for field in shape.fields if field.name != "ref"]
    needed = {field.name for field in fields if field.required}

    subject = next((name for name in _SUBJECT_FIELDS if name in needed), None)
    if subject is None:  # an optional field that is named as the group, as in `node.drain`
        subject = next((field.name for field in fields if tag_of(request).startswith(f"{field.name}.")), None)
    return [_request_field(field, field.name == subject) for field in fields]


def command_for(request: type[Request], offline: OfflineRequest | None = None) -> Callable[..., None]:
    """Make the function of one command, with the signature that typer reads its options from."""
    fields = fields_of(request)
    names = {field.name for field in fields}
    tag = tag_of(request)

    def command(**values: Any) -> None:
        message = _message(request, fields, values)
        output = Output(as_json=values["json"], wide=values["wide"], tag=tag)
        if offline is not None and values["database"] is not None:
            output.answer(asyncio.run(offline(values["database"], message)))
            return
        whole = {"limit", "after"} <= names and values["field_limit"] is None
        server = find_server(values["server"], values["data"], values["ca"])
        token = find_token(values["token"], values["data"])
        if tag in _CONFIRMED_REQUESTS and not (values["yes"] or getattr(message, "dry_run", False)):
            if isinstance(message, ResultInvalidate):
                _confirm(asyncio.run(_question(server, token, message)))
            else:
                _confirm(_CONFIRMED_REQUESTS[tag])

        asyncio.run(_ask_server(server, token, message, output, whole=whole, form=_csv_form(message, values)))

    parameters = [*_argument(fields), *(_option(field, names) for field in fields)]
    if tag in _CONFIRMED_REQUESTS:
        yes = typer.Option("--yes", help="Do not ask.")
        parameters.append(_parameter("yes", Annotated[bool, yes], False))

    if request is ResultExport:
        parameters += _csv_options()
    if offline is not None:
        database = typer.Option(metavar="DSN", help="Do it in this database itself, where no server runs yet.")
        parameters.append(_parameter("database", Annotated[str | None, database], None))

    parameters += [
        _parameter("server", Server, None),
        _parameter("ca", Authority, None),
        _parameter("token", Token, None),
        _parameter("data", DataFolder, None),
        _parameter("json", AsJson, False),
        _parameter("wide", Wide, False),
    ]

    command.__name__ = tag.replace(".", "_")
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return with_exit_codes(command)


async def _ask_server(
    server: ServerAccess, token: str | None, message: Request, output: Output, *, whole: bool, form: CsvForm
) -> None:
    """Make one request and write its answer; with `whole`, follow a list to its last page."""
    async with admin_connection(server.address, token, server.authority) as client:
        if isinstance(message, ResultExport):
            await write_export(client, message, form, whole=whole)
            return
        if isinstance(message, ResultChanges):
            await write_changes(client, message, output, whole=whole)
            return
        if whole:
            await _write_pages(client, message, output)
            return

        answer = await client.request(message)
        if "rows" not in answer:
            output.answer(answer)
            if answer.get("unknown") and tag_of(type(message)) in _REFUSES_UNKNOWN:
                raise typer.Exit(EXIT_REFUSED)
            return
        output.rows(answer["rows"])
        output.tell_left_out()
        if answer.get("next") is not None:
            typer.echo(f"There is more: {after_hint(answer['next'])}", err=True)


async def _write_pages(client: AdminClient, message: Request, output: Output) -> None:
    count = 0
    async for rows in client.pages(message):
        output.rows(rows)
        count += len(rows)
    output.tell_left_out()
    if not output.as_json:
        typer.echo("There are none." if not count else f"{count:,} in all", err=True)


def _message(request: type[Request], fields: list[RequestField], values: dict[str, Any]) -> Request:
    """Build the request from the values that typer has read."""
    content = {}
    for field in fields:
        value = field.value(values[f"field_{field.name}"], values.get(f"argument_{field.name}"))
        if value is not None:
            content[field.name] = value
    try:
        return msgspec.convert({"type": tag_of(request), **content}, request)
    except msgspec.ValidationError as failure:
        found = re.search(r"`\$\.(\w+)", str(failure))
        hint = f"--{found[1].replace('_', '-')}" if found else None
        raise typer.BadParameter(str(failure), param_hint=hint) from None


def _csv_options() -> list[inspect.Parameter]:
    kept = typer.Option(
        "--spreadsheet", help="With csv: write texts so that spreadsheets neither change nor run them; --bom, too."
    )
    bom = typer.Option("--bom", help="With csv: begin with the mark by which spreadsheets know UTF-8.")
    named = typer.Option(
        "--attribute",
        metavar="NAME",
        help="With csv: an attribute with a column of its own. Default: those of the first rows.",
    )
    return [
        _parameter("spreadsheet", Annotated[bool, kept], False),
        _parameter("bom", Annotated[bool, bom], False),
        _parameter("attribute", Annotated[list[str] | None, named], None),
    ]


def _csv_form(message: Request, values: dict[str, Any]) -> CsvForm:
    """Return how a CSV is written.

    Raises:
        typer.BadParameter: it is said of what is no CSV.
    """
    for name in ("spreadsheet", "bom", "attribute"):
        if values.get(name) and getattr(message, "format", None) != "csv":
            raise typer.BadParameter("Expected --format csv with it.", param_hint=f"--{name}")
    return CsvForm(values.get("spreadsheet", False), values.get("bom", False), tuple(values.get("attribute") or ()))


async def _question(server: ServerAccess, token: str | None, message: ResultInvalidate) -> str:
    """Ask the server how much would be taken back, and make the question of it."""
    async with admin_connection(server.address, token, server.authority) as client:
        count = (await client.request(structs.replace(message, dry_run=True)))["count"]
    whose = "all clients" if message.client_id is None else message.client_id
    where = "all services" if message.service is None else message.service
    when = "".join(f" {name} {moment}" for name in ("since", "until") if (moment := getattr(message, name)) is not None)
    return printable(f"Really take back {counted(count, 'result')} of {whose} in {where}{when}?")


def _confirm(question: str) -> None:
    try:
        sure = typer.confirm(question, err=True)
    except typer.Abort:
        sure = False
    if not sure:
        fail("Nothing was done; --yes does it without asking.", EXIT_USAGE)


def _request_field(field: shapes.Field, is_subject: bool) -> RequestField:
    """Tell how a field of this type is given on the command line."""
    kind: shapes.Type = field.type
    if isinstance(kind, shapes.UnionType):
        kind = next(member for member in kind.types if not isinstance(member, shapes.NoneType))

    many = isinstance(kind, shapes.ListType)
    inner = kind.item_type if isinstance(kind, shapes.ListType) else kind
    python: Any

    match inner:
        case shapes.BoolType():
            python = bool
        case shapes.IntType():
            python = int
        case shapes.FloatType():
            python = float
        case shapes.StrType():
            python = str
        case shapes.LiteralType():
            python = Literal[tuple(inner.values)]
        case _:
            return RequestField(field.name, field.required, is_subject, many, True, list[str] if many else str)

    return RequestField(field.name, field.required, is_subject, many, False, list[python] if many else python)


def _argument(fields: list[RequestField]) -> list[inspect.Parameter]:
    """Return the parameter of the request's subject, if it has one."""
    for field in fields:
        if field.is_subject:
            metavar = field.name.removesuffix("s").upper() + ("…" if field.many else "")
            argument = typer.Argument(metavar=metavar, help=FIELD_HELP.get(field.name), show_default=False)
            return [_parameter(f"argument_{field.name}", Annotated[field.python | None, argument], None)]
    return []


def _option(field: RequestField, names: set[str]) -> inspect.Parameter:
    options = [field.option]
    if field.python is bool:
        options = [f"{field.option}/--no-{field.option[2:]}"]
    elif field.many and field.name.removesuffix("s") not in names:
        options.append(field.option.removesuffix("s"))
    needed = " Needed." if field.required and not field.is_subject else ""
    option = typer.Option(
        *options,
        help=FIELD_HELP.get(field.name, "") + needed,
        metavar="JSON" if field.json and field.name != "items" else None,
        show_default=False,
    )
    return _parameter(f"field_{field.name}", Annotated[field.python | None, option], None)


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _help_text(request: type[Request]) -> str:
    text = inspect.cleandoc(request.__doc__ or tag_of(request))
    return f"{text}\n\nAnswers: {_answer_fields(request)}.\n\nExample: `{example_of(request)}`"


def example_of(request: type[Request]) -> str:
    """Return a command line that shows a request: one of `EXAMPLES`, or one of the fields that it needs."""
    tag = tag_of(request)
    words = ["coordinator", *_words(request)]
    for field in fields_of(request):
        value = field.name.removesuffix("s").upper()
        if field.is_subject:
            words.append(value)
        elif field.required:
            words += [field.option, value]
    return EXAMPLES.get(tag, " ".join(words))


def _words(request: type[Request]) -> list[str]:
    """Return the words by which a request is called: the command's, and before it that of its group if it is in one."""
    return tag_of(request).replace("_", "-").split(".")


def _answer_fields(request: type[Request]) -> str:
    """Name the fields of the answer, or of the rows of a list."""
    shape = cast(shapes.StructType, shapes.type_info(ANSWERS[request]))
    fields = {field.name: field.type for field in shape.fields if field.name != "ref"}
    rows = fields.get("rows")
    if isinstance(rows, shapes.RawType):
        rows = shapes.type_info(PUBLISHED[ANSWERS[request], "rows"])
    if isinstance(rows, shapes.ListType) and isinstance(rows.item_type, shapes.StructType):
        return f"rows of `{', '.join(field.name for field in rows.item_type.fields)}`"
    return f"`{', '.join(fields)}`"
