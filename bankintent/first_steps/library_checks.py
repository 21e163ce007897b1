"""Findings on packages: their versions, whether they can be imported, what they compute on."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bankintent import distribution
from bankintent.config import TrainConfig
from bankintent.first_steps import libraries, package_ranges
from bankintent.first_steps.finding import Finding
from bankintent.texts import list_some

REQUIREMENTS = distribution.REPOSITORY / "requirements.txt"

INSTALL = distribution.install_extra(package_ranges.EXTRA)

LIBRARY_SECONDS = 120.0
"""Longest time for all imports: seconds on most machines, more on a cold and busy disk."""

NVIDIA = Path("/dev/nvidia0")
"""The first GPU of a machine with NVIDIA's driver."""


def check_packages() -> list[Finding]:
    """The installed versions against those of requirements.txt, or of the installed package."""
    name = "packages"
    if distribution.is_installed():
        return package_ranges.check_ranges(name)
    if not REQUIREMENTS.is_file():
        return [Finding(name, "note", "no requirements.txt beside the package to compare with")]

    missing = []
    other = []
    pinned = read_pins(REQUIREMENTS.read_text(encoding="utf-8"))
    for package, version in pinned.items():
        installed = _installed(package)
        if installed is None:
            missing.append(package)
        elif installed.partition("+")[0] != version:
            other.append(f"{package} {installed} (pinned: {version})")

    if missing:
        return [Finding(name, "problem", f"not installed: {list_some(missing)}", INSTALL)]
    if other:
        found = f"{len(other)} of {len(pinned)} differ: {list_some(other)}"
        return [Finding(name, "note", found, f"to have the tested ones: {INSTALL}")]
    return [Finding(name, "ok", f"all {len(pinned)} as in requirements.txt")]


def read_pins(text: str) -> dict[str, str]:
    """The exact version of each package of a requirements file that this machine needs."""
    from packaging.requirements import Requirement

    pins = {}
    for line in text.splitlines():
        bare = line.partition("#")[0].strip()
        if "==" not in bare or bare.startswith("-"):
            continue
        requirement = Requirement(bare)
        if requirement.marker is None or requirement.marker.evaluate():
            pins[requirement.name] = str(requirement.specifier).removeprefix("==")
    return pins


_installed = package_ranges.find_version


@dataclass
class LibraryReport:
    """What `libraries` has printed."""

    faults: dict[str, str] = field(default_factory=dict)
    """Of libraries that cannot be imported, by name."""
    imported: int = 0
    importing: str = ""
    """The library that was being imported last."""
    hardware: dict[str, Any] | None = None
    encoder_fault: str | None = None
    is_whole: bool = False
    end: str = ""
    """Why it is not whole."""


def check_libraries(settings: TrainConfig) -> list[Finding]:
    """Import what a run imports, in a process of its own, and say what it would compute on."""
    absent = [name for name in libraries.NEEDED if importlib.util.find_spec(name) is None]
    if absent:
        return [Finding("imports", "problem", f"not installed: {list_some(absent)}", INSTALL)]

    report = run_libraries(settings.precision, settings.model_name)
    findings = [_import_finding(report)]
    for library, fault in report.faults.items():
        findings.append(Finding(library, "problem", f"cannot be imported: {fault}", INSTALL))

    if report.hardware is not None and "torch" not in report.faults:
        findings += hardware_findings(report.hardware, NVIDIA.exists())
    if report.is_whole:
        findings.append(_encoder_finding(settings.model_name, report.encoder_fault))
    return findings


def run_libraries(precision: str, model_name: str) -> LibraryReport:
    """Run `libraries` and read what it prints, also where it crashes or hangs."""
    command = [sys.executable, "-m", "bankintent.first_steps.libraries", precision, model_name]
    paths = [str(distribution.REPOSITORY), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            timeout=LIBRARY_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        report = read_report((error.stdout or b"").decode(errors="replace"))
        report.end = f"took longer than {LIBRARY_SECONDS:.0f} s"
        return report

    report = read_report(done.stdout.decode(errors="replace"))
    ended_by = f"ended by signal {-done.returncode}"
    report.end = ended_by if done.returncode < 0 else f"ended with code {done.returncode}"
    return report


def read_report(text: str) -> LibraryReport:
    """The report of the lines that `libraries` prints; lines of others are passed over."""
    report = LibraryReport()
    for line in text.splitlines():
        entry = _read_line(line)
        if "importing" in entry:
            report.importing = entry["importing"]
        elif "imported" in entry:
            report.imported += 1
            if entry["fault"] is not None:
                report.faults[entry["imported"]] = entry["fault"]
        elif "precision" in entry:
            report.hardware = entry
        elif "encoder" in entry:
            report.encoder_fault = entry["fault"]
            report.is_whole = True
    return report


def _read_line(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _import_finding(report: LibraryReport) -> Finding:
    name = "imports"
    whole = report.imported - len(report.faults)
    if report.is_whole:
        return Finding(name, "ok", f"{whole} libraries of training and publishing work")

    place = f"importing {report.importing}" if report.importing else "starting Python"
    if report.hardware is not None:
        place = "loading the encoder's code"
    return Finding(name, "problem", f"{place} {report.end}", f"reinstall: {INSTALL}")


def hardware_findings(entry: dict[str, Any], has_nvidia: bool) -> list[Finding]:
    """On the GPU and on the precision of training."""
    findings = []
    if entry.get("has_gpu"):
        findings.append(Finding("GPU", "ok", entry["hardware"]))
    elif has_nvidia:
        findings.append(
            Finding(
                "GPU",
                "note",
                "there is one, and torch does not see it",
                "install a torch with CUDA that fits the driver (pytorch.org)",
            )
        )
    else:
        findings.append(Finding("GPU", "ok", "none; nothing here needs one"))

    features = ", ".join(entry.get("features", [])) or "none that speed it up"
    if entry.get("fault"):
        findings.append(Finding("precision", "problem", entry["fault"], "set precision: auto"))
    else:
        found = f"{entry['picked']} in training (precision: {entry['precision']}); CPU: {features}"
        findings.append(Finding("precision", "ok", found))
    return findings


def _encoder_finding(model_name: str, fault: str | None) -> Finding:
    if fault is not None:
        return Finding("encoder", "problem", fault, "name another model_name, or mend this one")
    return Finding("encoder", "ok", f"{model_name} is there")
