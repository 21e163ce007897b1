"""Which models there are on disk, and whether their files have changed; nothing is loaded."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from bankintent.bundle.layout import MANIFEST, MERGED, ONNX
from bankintent.config import ModelSection, ServeConfig
from bankintent.errors import ConfigError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""A folder of another name is no model: its name could not stand in an address or a metric."""

Stamp = tuple[tuple[str, int, int, int], ...]
"""(name, inode, size, time of change) of some files; empty where there are none."""


@dataclass(frozen=True, slots=True)
class Place:
    """A model on disk."""

    section: ModelSection
    stamp: Stamp
    """Of its manifest, or without one of all its files."""


def find_places(settings: ServeConfig) -> dict[str, Place]:
    """Every model of a server with several, by name.

    Raises ConfigError where `models_dir` cannot be read, or two models have one name.
    """
    places = {}
    if settings.models_dir is not None:
        for folder in bundles_in(settings.models_dir):
            section = ModelSection(model_dir=folder)
            places[folder.name] = Place(section, stamp_of(folder))

    for name, section in settings.models.items():
        places[name] = Place(section, stamp_of(section.model_dir))
    if settings.model_dir is not None:
        name = name_of(settings.model_dir)
        if name in settings.models:
            raise ConfigError(
                f"model_dir and models both have a model {name}", "Leave one of them out"
            )
        section = ModelSection(model_dir=settings.model_dir, preload=True)
        places[name] = Place(section, stamp_of(settings.model_dir))
    return places


def name_of(path: Path) -> str:
    """The name of the model at a path: that of its bundle. ConfigError where it is none."""
    # Not behind links: a link that is turned to another version keeps its name.
    name = manifest_of(path).parent.absolute().name
    if NAME.fullmatch(name) is None:
        raise ConfigError(
            f"the folder of model_dir has a name with other characters than A-Z, a-z, 0-9, . _ -"
            f" ({name})",
            "Rename it, or give it a name in models",
        )
    return name


def bundles_in(folder: Path) -> list[Path]:
    """The bundles in a folder, sorted; ConfigError where it cannot be read."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise ConfigError(
            f"models_dir: {folder} cannot be read ({error.strerror})", "Name a folder of bundles"
        ) from None

    found = []
    for name in names:
        # A manifest is written last: a bundle without one is not whole.
        if NAME.fullmatch(name) and (folder / name / MANIFEST).is_file():
            found.append(folder / name)
    return found


def manifest_of(path: Path) -> Path:
    """The manifest of the bundle at a path, also where it is merged/ or onnx/ of one."""
    around = path.parent / MANIFEST
    if path.name in (MERGED, ONNX) and around.is_file():
        return around
    return path / MANIFEST


def stamp_of(path: Path) -> Stamp:
    """What changes when a bundle is replaced: cheap, one file is looked at."""
    manifest = manifest_of(path)
    own = _stamp(manifest, MANIFEST)
    return (own,) if own is not None else stamp_of_all(path)


def stamp_of_all(path: Path) -> Stamp:
    """What changes with any file of a bundle."""
    stamps = []
    for folder, _, names in os.walk(path):
        for name in sorted(names):
            place = Path(folder) / name
            own = _stamp(place, place.relative_to(path).as_posix())
            if own is not None:
                stamps.append(own)
    return tuple(sorted(stamps))


def _stamp(path: Path, name: str) -> tuple[str, int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return name, found.st_ino, found.st_size, found.st_mtime_ns
