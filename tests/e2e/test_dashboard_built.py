"""The committed bundle equals the build of its source, and has the licences of its packages beside it."""

from __future__ import annotations

import json
from pathlib import Path

from coordinator import dashboard
from tests.e2e.browser import SOURCE
from tests.e2e.programs import npm

BUILT = SOURCE.parent / "built"


def test_the_built_files_equal_a_build_of_the_source(dashboard_source: Path, tmp_path: Path) -> None:
    for command in (["run", "check"], ["run", "bundle", "--", str(tmp_path)]):
        completed = npm(*command, cwd=dashboard_source, timeout=60)
        assert completed.returncode == 0, completed.stdout + completed.stderr

    files = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert files.keys() == dashboard.built().keys()
    assert files == dashboard.built(), (
        "npm run build in coordinator/dashboard/source, and commit the files that it writes"
    )


def test_the_parts_that_draw_nothing(dashboard_source: Path) -> None:
    completed = npm("test", cwd=dashboard_source, timeout=60)
    assert completed.returncode == 0, completed.stdout + completed.stderr


def test_every_package_in_the_bundle_has_its_licence_beside_it() -> None:
    notices = dashboard.built()["assets/licences.txt"].decode()
    package = json.loads((SOURCE / "package.json").read_text())
    for name, version in package["dependencies"].items():
        assert f"{name} {version} (" in notices
    assert notices.count("Permission is hereby granted") == len(package["dependencies"])


def test_versions_are_pinned_and_no_address_is_written_down() -> None:
    package = json.loads((SOURCE / "package.json").read_text())
    text = (SOURCE / "package-lock.json").read_text()
    lock = json.loads(text)
    for name, version in {**package["dependencies"], **package["devDependencies"]}.items():
        assert lock["packages"][f"node_modules/{name}"]["version"] == version
    assert "http" not in text, "a lock file without addresses was expected"
    assert all("integrity" in entry for name, entry in lock["packages"].items() if name)
