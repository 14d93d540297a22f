"""The process of the attacker: each line of its input names a flood, and is answered when that one is over."""

from __future__ import annotations

import json
import sys

import uvloop

from tests.hostile.floods import FLOODS, Target


async def flood(command: dict[str, object]) -> int:
    """Run one flood."""
    target = Target(int(str(command["port"])), float(str(command["seconds"])), str(command["token"]))
    return await FLOODS[str(command["do"])](target)


def main() -> None:
    """Flood as often as commanded."""
    for line in sys.stdin:
        count = uvloop.run(flood(json.loads(line)))
        sys.stdout.write(json.dumps({"count": count}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
