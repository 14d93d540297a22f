"""Counts what makes the package hard to read: `python -m tests.structure` prints each place."""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import combinations
from pathlib import Path

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "coordinator"

MOST_ARGUMENTS = 7
MOST_LINES_OF_A_FUNCTION = 60
MOST_LINES_OF_A_FILE = 400
LINES_OF_A_PARAGRAPH = 15
"""A longer function has a blank line between its steps."""

WEAK_OPENINGS = re.compile(r"(What|Who|Whoever|Whatever|Whose)\b")

CODEC = ("wire", "store", "services", "cli", "client", "embedded", "observe/logs.py", "config.py")
"""Where JSON and rows of the database come in and go out; past them everything has a type."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file of the package."""

    path: str
    text: str
    tree: ast.Module

    @classmethod
    def of(cls, path: str, text: str) -> Source:
        """Read the text of a file."""
        return cls(path, text, ast.parse(text))

    @property
    def folder(self) -> str:
        return self.path.partition("/")[0] if "/" in self.path else ""


def sources(folder: Path = PACKAGE) -> list[Source]:
    """All Python files of the package, or of another folder, by path."""
    files = sorted(folder.rglob("*.py"))
    return [Source.of(str(file.relative_to(folder)), file.read_text()) for file in files]


Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(source: Source) -> Iterator[Function]:
    return (node for node in ast.walk(source.tree) if isinstance(node, Function))


def length(function: Function) -> int:
    return (function.end_lineno or 0) - function.lineno + 1


def long_constructors(found: list[Source]) -> Iterator[str]:
    """Constructors that take more than seven arguments beside `self`."""
    for source in found:
        for function in functions(source):
            arguments = function.args
            count = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs) - 1
            if function.name == "__init__" and count > MOST_ARGUMENTS:
                yield f"{source.path}:{function.lineno} takes {count} arguments"


def long_functions(found: list[Source]) -> Iterator[str]:
    """Functions that do not fit on a screen."""
    for source in found:
        for function in functions(source):
            if length(function) > MOST_LINES_OF_A_FUNCTION:
                yield f"{source.path}:{function.lineno} {function.name} has {length(function)} lines"


def long_files(found: list[Source]) -> Iterator[str]:
    """Files that hold more than one thing, by their length."""
    for source in found:
        lines = source.text.count("\n")
        if lines > MOST_LINES_OF_A_FILE:
            yield f"{source.path} has {lines} lines"


def functions_without_paragraphs(found: list[Source]) -> Iterator[str]:
    """Functions of more than a few lines whose steps are not set apart by a blank line."""
    for source in found:
        lines = source.text.splitlines()
        for function in functions(source):
            statements = function.body[1:] if ast.get_docstring(function) else function.body
            if not statements:
                continue
            body = lines[statements[0].lineno - 1 : function.end_lineno]
            if len(body) > LINES_OF_A_PARAGRAPH and len(statements) > 1 and "" not in body:
                yield f"{source.path}:{function.lineno} {function.name} has {len(body)} lines without a blank one"


def weak_docstrings(found: list[Source]) -> Iterator[str]:
    """Docstrings that begin with a relative clause instead of a verb or a noun."""
    for source in found:
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant):
                continue
            text = node.value.value
            if isinstance(text, str) and WEAK_OPENINGS.match(text):
                yield f"{source.path}:{node.lineno} {text.splitlines()[0]}"


def two_way_ties(found: list[Source]) -> Iterator[str]:
    """Folders that import each other."""
    imports: defaultdict[str, set[str]] = defaultdict(set)
    for source in found:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("coordinator."):
                folder = node.module.split(".")[1]
                if source.folder and (PACKAGE / folder).is_dir() and folder != source.folder:
                    imports[source.folder].add(folder)

    for one, other in combinations(sorted(imports), 2):
        if other in imports[one] and one in imports[other]:
            yield f"{one} and {other} import each other"


def import_cycles(found: list[Source]) -> Iterator[str]:
    """Modules that import each other, by way of others: whether they can be imported depends on which comes first."""
    known = {source.path for source in found}
    imports = {source.path: {name for name in _imported(source, known) if name != source.path} for source in found}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as cycle:
        yield " is imported by ".join(cycle.args[1])


def _imported(source: Source, known: set[str]) -> Iterator[str]:
    """Files that run when a module is imported: those that it names, and the packages around them."""
    around = {str(folder / "__init__.py") for folder in Path(source.path).parents}
    for node in source.tree.body:
        if not isinstance(node, ast.ImportFrom) or (node.module or "").partition(".")[0] != "coordinator":
            continue
        module = Path(*str(node.module).split(".")[1:])
        for name in (module, *(module / alias.name for alias in node.names)):
            packages = {str(folder / "__init__.py") for folder in (name, *name.parents)}
            yield from known & ({f"{name}.py"} | packages - around)


def shapeless_values(found: list[Source]) -> Iterator[str]:
    """Places past the codec that handle `dict[str, Any]`; `JsonObject` says that others decide the shape."""
    for source in found:
        if source.path.startswith(CODEC):
            continue
        for number, line in enumerate(source.text.splitlines(), 1):
            if "dict[str, Any]" in line and not line.startswith("JsonObject = "):
                yield f"{source.path}:{number} {line.strip()}"


def names_of_two_classes(found: list[Source]) -> Iterator[str]:
    """Class names that stand for two things."""
    places: defaultdict[str, list[str]] = defaultdict(list)
    for source in found:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(source.path)
    for name, paths in sorted(places.items()):
        if len(paths) > 1:
            yield f"{name}: {', '.join(paths)}"


def names_of_two_constants(found: list[Source]) -> Iterator[str]:
    """Public constants of one name and different value."""
    places: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for source in found:
        for node in source.tree.body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            for target in targets:
                if isinstance(target, ast.Name) and re.fullmatch(r"[A-Z][A-Z_]+", target.id):
                    assert isinstance(node, ast.Assign)
                    places[target.id][ast.unparse(node.value)] = source.path
    for name, values in sorted(places.items()):
        if len(values) > 1:
            yield f"{name}: {', '.join(values.values())}"


def waits_that_lose_cancellations(found: list[Source]) -> Iterator[str]:
    """Calls of `asyncio.wait_for`, which in 3.11 drops a cancellation that comes as its task ends."""
    for source in found:
        for number, line in enumerate(source.text.splitlines(), 1):
            if "asyncio.wait_for(" in line:
                yield f"{source.path}:{number}"


COUNTS: tuple[Callable[[list[Source]], Iterator[str]], ...] = (
    long_constructors,
    long_functions,
    long_files,
    functions_without_paragraphs,
    weak_docstrings,
    two_way_ties,
    import_cycles,
    shapeless_values,
    names_of_two_classes,
    names_of_two_constants,
    waits_that_lose_cancellations,
)


def main() -> None:
    """Print every place, and how many there are of each kind."""
    found = sources()
    for count in COUNTS:
        places = list(count(found))
        sys.stdout.write(f"{len(places):4} {count.__name__.replace('_', ' ')}\n")
        sys.stdout.writelines(f"       {place}\n" for place in places)


if __name__ == "__main__":
    main()
