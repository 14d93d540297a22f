"""The dashboard's built files.  They are made from `source/` by `npm run build` there."""

from __future__ import annotations

from importlib import resources


def built() -> dict[str, bytes]:
    """Every built file by its path: `index.html`, `assets/…`."""
    root = resources.files(__name__) / "built"
    files = {"index.html": (root / "index.html").read_bytes()}
    for asset in (root / "assets").iterdir():
        files[f"assets/{asset.name}"] = asset.read_bytes()
    return files
