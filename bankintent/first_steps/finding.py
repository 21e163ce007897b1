"""The outcome of a check, and how a check is run: bounded in time, and alone in its failure."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from bankintent.public_names import without_secrets

State = Literal["ok", "note", "problem"]


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
