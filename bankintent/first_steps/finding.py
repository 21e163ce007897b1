"""The outcome of a check, and how a check is run: bounded in time, and alone in its failure."""

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

State = Literal["ok", "note", "problem"]

SECRETS = (
    # A user and a password before the host of an address.
    (re.compile(r"(\w+://)[^/@\s]+@"), r"\1***@"),
    (re.compile(r"(?i)([?&][^=&\s]*(?:pass|token|secret|key)[^=&\s]*=)[^&\s]+"), r"\1***"),
)
"""Patterns of secrets in addresses, and what is shown in their place."""


@dataclass(frozen=True)
class Finding:
    """What one check has found."""

    name: str
    state: State
    """note: nothing fails by it; problem: a run would stop there."""
    found: str
    to_do: str = ""


Check = Callable[[], list[Finding]]


def run_bounded(name: str, check: Check, seconds: float) -> list[Finding]:
    """The findings of a check, without secrets.

    One that raises, or takes longer, is a note: then nothing is known of what it looks at.
    """
    found: list[Finding] = []

    def run() -> None:
        try:
            found.extend(check())
        # A boundary: a check that fails must not end the others.
        except Exception as error:  # noqa: BLE001
            text = f"{type(error).__name__}: {error}"
            found.append(Finding(name, "note", f"this check failed ({text})"))

    # A daemon: a disk or a server that never answers does not keep the process.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)

    if thread.is_alive():
        return [Finding(name, "note", f"no answer within {seconds:.0f} s")]
    return [_without_secrets(finding) for finding in found]


def _without_secrets(finding: Finding) -> Finding:
    found = without_secrets(finding.found)
    to_do = without_secrets(finding.to_do)
    return replace(finding, found=found, to_do=to_do)


def without_secrets(text: str) -> str:
    """A text on one line, with `***` for passwords and tokens in its addresses."""
    # The words of a message of several lines stand in one cell of a table.
    words = text.split()
    shown = " ".join(words)

    for pattern, replacement in SECRETS:
        shown = pattern.sub(replacement, shown)
    return shown
