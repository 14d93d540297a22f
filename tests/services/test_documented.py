"""Every hook of a plugin and every setting of a service is described, and some test's plugin or request uses it."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

from coordinator.model import ServiceSettings
from coordinator.services import Plugin
from coordinator.services.contract import Plugin as Contract
from coordinator.services.settings import OfEveryService

TESTS = Path(__file__).parents[1]
OWN_ACCOUNT = {"selects", "checks", "stores", "labels", "discovers", "built_in", "key_form"}
"""Names that the coordinator reads or sets; plugins do not override them."""

HOOKS = sorted(name for name in vars(Plugin) if not name.startswith("_") and name not in OWN_ACCOUNT)


def texts(*folders: Path) -> str:
    return "\n".join(file.read_text() for folder in folders for file in folder.rglob("*.py") if file != Path(__file__))


def test_there_is_one_contract() -> None:
    assert Plugin is Contract
    assert {"select", "check", "is_part", "label", "store", "forget", "invalidate", "reinstate"} <= set(HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_is_described_and_used(hook: str) -> None:
    member = getattr(Plugin, hook)
    described = inspect.getdoc(member) if callable(member) else None
    assert described or f"`{hook}`" in (inspect.getdoc(Plugin) or ""), f"{hook} is not described"
    package = Path(inspect.getfile(Contract)).parent
    others = texts(package / "example", package / "follow") + (package / "generic.py").read_text()
    assert re.search(rf"def {hook}\(|^    {hook}\b.*=", others, re.MULTILINE), f"no plugin has {hook}"


@pytest.mark.parametrize("name", [field.name for field in fields(ServiceSettings)])
def test_a_setting_is_described_bounded_and_used(name: str) -> None:
    assert f"`{name}`" in (inspect.getdoc(ServiceSettings) or ""), f"{name} is not described"
    assert name in OfEveryService.__struct_fields__
    assert re.search(rf"\b{name}\b\"?[=:]", texts(TESTS)), f"no test sets {name}"
