"""The units, manifests and settings of `deploy/` are what systemd, Kubernetes, Postgres and this program take."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from coordinator.app import CLOSE_WITHIN
from coordinator.client.daemon import STOP_GRACE
from coordinator.config import Settings
from coordinator.serve.listener import CLOSE_PERIOD
from coordinator.store.pool import Database
from tests.needed import program
from tests.serve.tools import value

DEPLOY = Path(__file__).parent.parent / "deploy"
SYSTEMD, KUBERNETES = DEPLOY / "systemd", DEPLOY / "kubernetes"
MANIFESTS = sorted(path.name for path in KUBERNETES.glob("*.yaml"))
MOST_EXPOSED = 2.0
"""Of 10, by `systemd-analyze security`."""


def systemd(*words: str | Path, folder: Path) -> str:
    """Run a program of systemd, which takes what it is given without a word; its output."""
    program(str(words[0]), "systemd")
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(folder)}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert not re.search(r"[Uu]nknown|[Ff]ailed to parse|[Ii]nvalid|ignoring", done.stderr), done.stderr
    return done.stdout


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, with a program in place of the one that is not installed here."""
    for unit in SYSTEMD.glob("coordinator*.[st]*"):
        text = re.sub(
            r"(/opt/coordinator|%h/\.local/share/coordinator/venv)/bin/coordinator", "/bin/true", unit.read_text()
        )
        (tmp_path / unit.name).write_text(text)
    for drop_in in SYSTEMD.glob("*.conf"):
        folder = tmp_path / "coordinator.service.d"
        folder.mkdir(exist_ok=True)
        shutil.copy(drop_in, folder)
    return tmp_path


def test_systemd_takes_the_units(units: Path) -> None:
    names = ("coordinator.service", "coordinator-backup.service", "coordinator-backup.timer")
    systemd("systemd-analyze", "verify", *(units / name for name in names), folder=units)
    systemd("systemd-analyze", "--user", "verify", units / "coordinator-work.service", folder=units)
    systemd("systemd-sysusers", "--dry-run", units / "coordinator.sysusers", folder=units)


def test_the_node_is_hardened(units: Path) -> None:
    said = systemd("systemd-analyze", "security", "--offline=yes", units / "coordinator.service", folder=units)
    found = re.search(r"exposure level for coordinator.service: ([0-9.]+)", said)
    assert found is not None
    assert float(found[1]) <= MOST_EXPOSED


def test_what_the_units_run_is_there() -> None:
    from coordinator.cli.command_tree import OWN_COMMANDS

    run = re.findall(r"bin/coordinator (\w+)", "".join(path.read_text() for path in SYSTEMD.glob("*.service")))
    assert sorted(run) == ["backup", "serve", "work"]
    assert OWN_COMMANDS.keys() >= set(run)


def documents(name: str) -> Iterator[Any]:
    return (document for document in yaml.safe_load_all((KUBERNETES / name).read_text()) if document)


@pytest.mark.parametrize("name", MANIFESTS)
def test_kubernetes_takes_the_manifests(name: str) -> None:
    for document in documents(name):
        kubernetes_validate.validate(document, "1.37", strict=True)


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_manifests_fit_together(name: str) -> None:
    """Selectors find their pods, volumes are there, and every pod is as closed as can be."""
    found = list(documents(name))
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in found if "template" in one.get("spec", {})]
    for one in found:
        selector = one.get("spec", {}).get("selector", {})
        wanted = selector.get("matchLabels", selector)
        assert not wanted or any(wanted.items() <= pod.items() for pod in labels), one["metadata"]
        if (target := one.get("spec", {}).get("scaleTargetRef")) is not None:
            assert any((o["kind"], o["metadata"]["name"]) == (target["kind"], target["name"]) for o in found)
        if "template" not in one.get("spec", {}):
            continue

        pod = one["spec"]["template"]["spec"]
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        volumes |= {claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", [])}
        assert pod["securityContext"]["runAsNonRoot"]
        for container in pod["containers"]:
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes
            assert container["securityContext"]["readOnlyRootFilesystem"]
            assert container["resources"]["limits"]["memory"]
            if container["args"][0] == "serve":
                assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
                assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"


def configurations() -> Iterator[tuple[str, str]]:
    yield "systemd", (SYSTEMD / "coordinator.toml").read_text()
    for name in MANIFESTS:
        for block in re.findall(r"coordinator\.toml: \|\n((?:    .*\n)+)", (KUBERNETES / name).read_text()):
            yield name, block.replace("\n    ", "\n").removeprefix("    ")


@pytest.mark.parametrize(("where", "text"), list(configurations()), ids=lambda text: text.partition(".yaml")[0][:20])
def test_the_settings_are_settings(where: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "coordinator.toml"
    file.write_text(text)
    assert len(tomllib.loads(text)) > 5
    assert Settings(config=file, data=tmp_path).registration == "token"


def test_those_who_stop_a_node_give_it_the_time_that_it_takes() -> None:
    drain = Settings.model_fields["drain_grace"].default + CLOSE_PERIOD + CLOSE_WITHIN
    stop_postgres = 70.0  # as `EmbeddedPostgres.stop` says
    unit = (SYSTEMD / "coordinator.service").read_text()
    assert int(re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[0]) >= drain + stop_postgres
    unit = (SYSTEMD / "coordinator-work.service").read_text()
    assert int(re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[0]) >= 2 * STOP_GRACE

    for name, needed in (("single-node.yaml", drain + stop_postgres), ("external-postgres.yaml", drain)):
        pods = [one["spec"]["template"]["spec"] for one in documents(name) if "template" in one.get("spec", {})]
        (pod,) = [pod for pod in pods if pod["containers"][0]["args"][0] == "serve"]
        before = pod["containers"][0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        assert pod["terminationGracePeriodSeconds"] >= before + needed, name
    compose = yaml.safe_load((DEPLOY / "container/compose.yaml").read_text())
    assert float(compose["services"]["node"]["stop_grace_period"].removesuffix("s")) >= drain


def test_the_compose_file_fits_together() -> None:
    compose = yaml.safe_load((DEPLOY / "container/compose.yaml").read_text())
    services = compose["services"]
    for service in services.values():
        assert services.keys() >= set(service.get("depends_on", {}))
        secrets = {one if isinstance(one, str) else one["source"] for one in service.get("secrets", [])}
        assert compose["secrets"].keys() >= secrets
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source in compose["volumes"] or (DEPLOY / "container" / source).is_file()
        if (build := service.get("build")) is not None:
            assert (DEPLOY / "container" / build["context"] / build["dockerfile"]).is_file()
    flags = [word[2:].replace("-", "_") for word in services["node"]["command"] if word.startswith("--")]
    assert set(flags) <= Settings.model_fields.keys()


def test_caddy_takes_the_configuration_of_the_compose_file(tmp_path: Path) -> None:
    caddy = program("caddy", "caddy")
    content = yaml.safe_load((DEPLOY / "container/compose.yaml").read_text())["configs"]["caddyfile"]["content"]
    (tmp_path / "Caddyfile").write_text(content.replace("$$", "$"))
    environment = {**os.environ, "COORDINATOR_NAME": "localhost", "HOME": str(tmp_path)}
    words = [caddy, "validate", "--adapter", "caddyfile", "--config", str(tmp_path / "Caddyfile")]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


async def test_postgres_knows_the_settings(database: Database) -> None:
    text = (DEPLOY / "postgres/postgresql.conf").read_text()
    names = re.findall(r"^([a-z_]+) = ", text, re.MULTILINE)
    unknown = "SELECT array_agg(n) FROM unnest($1::text[]) n WHERE n NOT IN (SELECT name FROM pg_settings)"
    assert len(names) > 20
    assert await value(database, unknown, names) is None


@pytest.mark.parametrize("readme", sorted(DEPLOY.glob("*/README.md")), ids=lambda path: path.parent.name)
def test_the_files_that_a_readme_names_are_there(readme: Path) -> None:
    text = readme.read_text()
    named = {name.rstrip(".") for name in re.findall(r"deploy/[\w./-]+", text)} - {"deploy/systemd/coordinator-backup"}
    assert named
    assert [name for name in named if not (DEPLOY.parent / name).exists()] == []
