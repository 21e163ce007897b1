"""The comment by which editors find the JSON Schema of a YAML file: completion, help, mistakes."""

import os
from pathlib import Path

from bankintent.distribution import shipped

SCHEMAS = shipped("configs/schemas")

PREFIX = "# yaml-language-server: $schema="
"""Read by the YAML language server, which VS Code, Neovim, JetBrains and others use."""


def editor_line(kind: str, folder: Path) -> str:
    """The first line of a file of this kind in a folder; empty where it would be of no use.

    That is where file and schema are not both below the working directory: a path from one to the
    other would hold for this machine alone.
    """
    schema = SCHEMAS / f"{kind}.schema.json"
    place = Path(os.path.abspath(folder))
    here = Path.cwd()
    if not (schema.is_file() and schema.is_relative_to(here) and place.is_relative_to(here)):
        return ""

    path = Path(os.path.relpath(schema, place)).as_posix()
    # A path ends at the first blank.
    return "" if " " in path else f"{PREFIX}{path}\n"
