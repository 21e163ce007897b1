"""`doctor`: every check of this machine, one table, and whether a run would stop."""

from functools import partial

from bankintent import console
from bankintent.config import TrainConfig
from bankintent.first_steps import checks, library_checks, recipes
from bankintent.first_steps.finding import Check, Finding, run_bounded
from bankintent.progress import waiting

QUICKSTART = recipes.path_of("lora")
"""The settings of the run that `make quickstart` makes."""

SECONDS = 5.0
"""Longest time for one check."""

HEADER = ["check", "state", "found", "what to do"]


def examine(settings: TrainConfig) -> bool:
    """Run all checks for a run with these settings and print them; whether it would not stop."""
    with waiting("Checking this machine"):
        findings = find_all(settings)

    show(findings)
    states = [finding.state for finding in findings]
    return "problem" not in states


def find_all(settings: TrainConfig) -> list[Finding]:
    """The findings of all checks, in the order in which they are shown."""
    findings: list[Finding] = []
    checks_by_name = all_checks(settings)
    for name, (check, seconds) in checks_by_name.items():
        findings += run_bounded(name, check, seconds)

    return findings


def all_checks(settings: TrainConfig) -> dict[str, tuple[Check, float]]:
    """Each check by its name, with the seconds that it may take."""
    # Its process has a limit of its own, and says where it was then.
    library_seconds = library_checks.LIBRARY_SECONDS + SECONDS
    return {
        "Python": (checks.check_python, SECONDS),
        # Before the imports, which are a load themselves.
        "processor": (checks.check_processor, SECONDS),
        "packages": (library_checks.check_packages, SECONDS),
        "imports": (partial(library_checks.check_libraries, settings), library_seconds),
        "memory": (checks.check_memory, SECONDS),
        "disk": (partial(checks.check_disks, settings), SECONDS),
        "ports": (checks.check_ports, SECONDS),
        "tracking": (partial(checks.check_tracking, settings), SECONDS),
        "Hub": (checks.check_hub, SECONDS),
    }


def show(findings: list[Finding]) -> None:
    """Print a row for each finding, and what they come to."""
    rows = []
    for finding in findings:
        row = [finding.name, finding.state, finding.found, finding.to_do]
        rows.append(row)

    console.print_table("This machine", HEADER, rows)
    console.say(verdict(findings))


def verdict(findings: list[Finding]) -> str:
    """What all findings come to, in a sentence."""
    states = [finding.state for finding in findings]
    problems = states.count("problem")
    notes = states.count("note")

    noted = f"{notes} notes"
    if notes == 1:
        noted = "1 note"

    if problems:
        counted = f"{problems} problems stop"
        if problems == 1:
            counted = "1 problem stops"
        return f"{counted} a run ({noted} beside)."
    if notes:
        return f"Nothing stops a run; {noted}."

    return "Nothing stops a run."
