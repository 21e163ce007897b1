"""The pages of the documentation, as mkdocs.yml orders them."""

from pathlib import Path
from typing import Any

import yaml
from conftest import REPOSITORY

DOCS = REPOSITORY / "docs"


def settings() -> dict[str, Any]:
    """The content of mkdocs.yml."""
    return yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"))


def navigation() -> list[Path]:
    """Every page of the navigation, in its order."""
    return _pages(settings()["nav"])


def _pages(entry: Any) -> list[Path]:
    if isinstance(entry, str):
        return [DOCS / entry]

    below = entry.values() if isinstance(entry, dict) else entry
    pages = []
    for part in below:
        pages += _pages(part)
    return pages
