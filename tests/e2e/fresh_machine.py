"""A fresh Debian becomes a coordinator by the commands of `deploy/`: `python -m tests.e2e.fresh_machine`.

A node by its systemd unit, behind Caddy with TLS; a volunteer on another account, by its user unit; Prometheus; a
backup, restored into a second folder; a reload, a kill, a stop.  It prints how long each took.  Needs root,
systemd-nspawn, Caddy, Prometheus, and the registry of Python's packages; nothing of this machine is changed.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
import time
from collections.abc import Callable
from urllib.parse import quote

import trustme

from tests.e2e.machine import ROOT, Machine, running

DEPLOY = ROOT / "deploy"

ITEMS = 540

NAME = "work.example.org"

COORDINATOR = "runuser -u coordinator -- /opt/coordinator/bin/coordinator"

CHECK = """
def make(token):
    async def check(item, profile):
        return {"dm": "DM"}

    return check
"""
"""A checker of the volunteer's own: the outside API is not to be reached from there."""


def block(readme: str, begins: str) -> str:
    """Return the block of commands of a README that begins so; without those that install Debian's packages."""
    text = (DEPLOY / readme).read_text()
    blocks = [textwrap.dedent(found) for found in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)]
    (found,) = (one for one in blocks if one.startswith(begins))
    return "\n".join(line for line in found.splitlines() if not line.startswith("apt-get"))


def node(machine: Machine) -> None:
    machine.run(block("systemd/README.md", "systemd-sysusers"), network=True, patience=300)
    machine.run("systemctl is-active coordinator.service coordinator-backup.timer")
    assert "dm_check" in machine.run(block("systemd/README.md", "runuser -u coordinator"))


def proxy(machine: Machine) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert(NAME)
    machine.write("/etc/ssl/coordinator/ca.pem", authority.cert_pem.bytes().decode())
    chain = b"".join(part.bytes() for part in certificate.cert_chain_pems)
    machine.write("/etc/ssl/coordinator/chain.pem", chain.decode())
    machine.write("/etc/ssl/coordinator/key.pem", certificate.private_key_pem.bytes().decode(), 0o600, "caddy")
    machine.run(f"echo 127.0.0.1 {NAME} >> /etc/hosts; systemctl start caddy")

    (row,) = [line for line in (DEPLOY / "proxies/README.md").read_text().splitlines() if line.startswith("| Caddy |")]
    for command in re.findall(r"`([^`]+)`", row)[:2]:
        machine.run(command)
    ask = f"curl -sS --fail --cacert /etc/ssl/coordinator/ca.pem https://{NAME}"
    machine.until(f"{ask}/readyz", "the node is not there behind Caddy")
    assert "<title>" in machine.run(f"{ask}/")


def volunteer(machine: Machine) -> None:
    issued = machine.run(f"{COORDINATOR} token issue --role enrolment --label fresh --data /var/lib/coordinator --json")
    machine.write("/tmp/names.csv", "key\n" + "".join(f"n{n}\n" for n in range(ITEMS)))
    machine.run(f"{COORDINATOR} item import /tmp/names.csv --service dm_check --data /var/lib/coordinator")
    machine.run("useradd --create-home --shell /bin/bash volunteer; systemctl start dbus systemd-logind")
    machine.run("loginctl enable-linger volunteer")
    machine.until("test -S /run/user/$(id -u volunteer)/systemd/private", "no systemd of the volunteer")
    machine.write("/home/volunteer/fresh_check.py", CHECK)

    *before, enable = block("systemd/README.md", "python3 -m venv ~").splitlines()
    machine.run("\n".join(before), account="volunteer", network=True, patience=300)
    settings = {
        "COORDINATOR_ENROLMENT_TOKEN": json.loads(issued)["token"],
        "COORDINATOR_CA": "/etc/ssl/coordinator/ca.pem",
        "CHECKER": "fresh_check:make",
        "PYTHONPATH": "/home/volunteer",
    }
    lines = "".join(f"{name}={value}\n" for name, value in settings.items())
    text = (DEPLOY / "systemd/work.env").read_text() + lines
    machine.write("/home/volunteer/.config/coordinator/work.env", text, 0o600, "volunteer")
    machine.run(enable, account="volunteer")
    settled(machine, ITEMS)


def settled(machine: Machine, items: int, ops_port: int = 8766) -> None:
    """Wait until so many items are settled, as a node tells it."""
    line = f'coordinator_items{{service="dm_check",state="settled"}} {items}.0'
    ask = f"curl -sS --fail http://127.0.0.1:{ops_port}/metrics"
    machine.until(f"{ask} | grep -xF '{line}'", f"not {items} are settled")


def prometheus(machine: Machine) -> None:
    machine.run(block("README.md", "apt-get install prometheus"))
    query = quote('max(coordinator_items{service="dm_check",state="settled"})')
    ask = f"curl -sS --fail 'http://127.0.0.1:9090/api/v1/query?query={query}'"
    machine.until(f"{ask} | grep '\"{ITEMS}\"'", "Prometheus does not know what is settled")
    rules = machine.run("curl -sS --fail http://127.0.0.1:9090/api/v1/rules")
    assert all(rule["health"] in ("ok", "unknown") for rule in json.loads(rules)["data"]["groups"][0]["rules"])


def backup(machine: Machine) -> None:
    *restore, serve = block("systemd/README.md", "systemctl start coordinator-backup").splitlines()
    machine.run("\n".join(restore))
    machine.run(f"systemd-run --quiet --unit=tried {serve}")
    machine.until("curl -sS --fail http://127.0.0.1:8775/readyz", "the restored one does not serve")
    settled(machine, ITEMS, ops_port=8776)
    machine.run("systemctl stop tried")


def lasts(machine: Machine) -> None:
    """Reload, a kill, work behind it, and a stop."""
    machine.run("systemctl reload coordinator; systemctl is-active coordinator")
    machine.run("systemctl kill -s KILL coordinator")
    started_again = "systemctl is-active coordinator && test $(systemctl show -P NRestarts coordinator) = 1"
    machine.until(started_again, "it stays away")
    machine.write("/tmp/more.csv", "key\n" + "".join(f"m{n}\n" for n in range(ITEMS)))
    machine.run(f"{COORDINATOR} item import /tmp/more.csv --service dm_check --data /var/lib/coordinator")
    settled(machine, 2 * ITEMS)
    machine.run("systemctl stop coordinator; test $(systemctl show -P Result coordinator) = success")


STEPS: tuple[tuple[str, Callable[[Machine], None]], ...] = (
    ("the node, by its unit", node),
    ("Caddy with TLS before it", proxy),
    (f"a volunteer on another account, {ITEMS} items settled", volunteer),
    ("Prometheus reads it", prometheus),
    ("a backup, restored into a second folder that serves", backup),
    ("reload, kill -9, as many items again, stop", lasts),
)


def play() -> list[tuple[str, float]]:
    """Do all of it; the steps and their seconds."""
    took = []
    with running() as machine:
        for name, step in STEPS:
            begun = time.monotonic()
            step(machine)
            took.append((name, time.monotonic() - begun))
    return took


if __name__ == "__main__":
    for name, seconds in play():
        sys.stdout.write(f"{seconds:6.1f} s  {name}\n")
