"""Findings on the packages of an installed `bankintent`, against the ranges that it declares."""

from importlib import metadata

from packaging.requirements import Requirement

from bankintent import __version__, distribution
from bankintent.first_steps.finding import Finding
from bankintent.texts import list_some

EXTRA = "train"
"""The extra that a run needs."""


def check_ranges(name: str) -> list[Finding]:
    """The installed versions against the ranges of EXTRA; `name` is that of the finding."""
    needed = declared(EXTRA)
    missing = []
    other = []
    for requirement in needed:
        version = find_version(requirement.name)
        if version is None:
            missing.append(requirement.name)
        elif not requirement.specifier.contains(version, prereleases=True):
            other.append(f"{requirement.name} {version} (needed: {requirement.specifier})")

    to_do = distribution.install_extra(EXTRA)
    if missing:
        found = f"not installed: {list_some(missing)}"
        return [Finding(name, "problem", found, to_do)]
    if other:
        found = f"{len(other)} of {len(needed)} are others: {list_some(other)}"
        return [Finding(name, "note", found, f"to have those that fit: {to_do}")]
    found = f"all {len(needed)} as {distribution.PROGRAM} {__version__} needs them"
    return [Finding(name, "ok", found)]


def declared(extra: str) -> list[Requirement]:
    """What the installed package needs on this machine, with one of its extras."""
    needed = []
    for text in metadata.requires(distribution.PROGRAM) or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            needed.append(requirement)
    return needed


def find_version(package: str) -> str | None:
    """The installed version of a package; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
