"""Decisions to a patch file: those of a person, or of a conservative rule that needs none."""

import re
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from bankintent import console, files, typed_json
from bankintent.audit import review
from bankintent.audit.review import Decision, ReviewRow
from bankintent.config.audit import AGREEMENT, CONFIDENCE
from bankintent.corpus import patches
from bankintent.corpus.patches import Change, Kept, Patch, text_key
from bankintent.distribution import command
from bankintent.errors import DataError
from bankintent.files import JsonObject

PATCHES = Path("patches")
"""Where patches are written by default."""

NUMBERED = re.compile(r"(\d{4})-[0-9a-f]{8}\.json")
"""Names of patch files: a number, and the beginning of the hash of their content."""


@dataclass(frozen=True)
class Rule:
    """When a suggestion is taken without a person."""

    confidence: float = CONFIDENCE
    agreement: float = AGREEMENT


@dataclass(frozen=True)
class AuditManifest:
    """What is read of the manifest of an audit; the file has more."""

    name: str
    data_hash: str
    labels: list[str]
    settings: JsonObject


def read_manifest(folder: Path) -> AuditManifest:
    """The manifest of an audit; DataError where the folder is none."""
    path = folder / "manifest.json"
    try:
        return typed_json.parse(AuditManifest, path.read_text(encoding="utf-8"))
    except OSError:
        raise DataError(
            f"{folder} holds no audit (no manifest.json)",
            f"Make one: {command('audit')} --config configs/audit.yaml",
        ) from None
    except ValueError:
        raise DataError(f"{path} is not what an audit writes", "Run the audit again") from None


def apply_review(folder: Path, output: Path) -> Path:
    """Write the patch of what a person has decided; DataError where nothing was."""
    manifest = read_manifest(folder)
    rows = review.read_rows(folder)
    decisions = review.read_review(folder, rows, manifest.labels)
    patch = from_decisions(manifest, rows, decisions)
    if not patch.changes and not patch.kept:
        raise DataError(
            f"nothing is decided in {folder / review.REVIEW}",
            f"Decide with {command('audit review')} {folder}, or in a spreadsheet",
        )
    return _write_and_say(patch, output)


def apply_automatically(folder: Path, output: Path, rule: Rule) -> Path:
    """Write the patch of the suggestions that a rule takes; DataError where it takes none."""
    manifest = read_manifest(folder)
    rows = review.read_rows(folder)
    patch = from_rule(manifest, rows, rule)
    if not patch.changes:
        raise DataError(
            f"no suggestion in {folder} has a confidence of {rule.confidence:g} and neighbours that"
            f" agree ({rule.agreement:g})",
            "Decide yourself, or lower --confidence or --agreement",
        )
    return _write_and_say(patch, output)


def from_decisions(
    manifest: AuditManifest, rows: list[ReviewRow], decisions: dict[str, Decision]
) -> Patch:
    """The patch of what was decided of the rows; rows without a decision are not in it."""
    changes = []
    kept = []
    counts: Counter[str] = Counter()
    for row in rows:
        decision = decisions.get(row.id, Decision()).decision
        intent = review.chosen_intent(decision, row)
        is_kept = decision == review.KEEP or intent == row.given
        if is_kept:
            kept.append(Kept(row.id, text_key(row.text), row.given))
        elif decision == review.DROP or intent is not None:
            changes.append(Change(row.id, text_key(row.text), row.given, intent))
        counts[_outcome(decision, is_kept)] += 1

    made_from = {"listed": len(rows), **counts}
    return _patch(manifest, False, {}, made_from, changes, kept)


def _outcome(decision: str, is_kept: bool) -> str:
    if is_kept:
        return "kept"
    if decision == review.DROP:
        return "dropped"
    if decision in ("", review.SKIP):
        return "undecided"
    return "relabelled"


def from_rule(manifest: AuditManifest, rows: list[ReviewRow], rule: Rule) -> Patch:
    """The patch of the suggestions with enough confidence and neighbours that agree."""
    changes = []
    for row in rows:
        is_sure = row.confidence >= rule.confidence and row.agreement >= rule.agreement
        if is_sure and row.suggested != row.given:
            changes.append(Change(row.id, text_key(row.text), row.given, row.suggested))

    counts = {"listed": len(rows), "relabelled": len(changes)}
    counts["undecided"] = len(rows) - len(changes)
    return _patch(manifest, True, {"rule": asdict(rule)}, counts, changes, [])


def _patch(
    manifest: AuditManifest,
    automatic: bool,
    more: JsonObject,
    made_from: dict[str, int],
    changes: list[Change],
    kept: list[Kept],
) -> Patch:
    return Patch(
        format=patches.FORMAT,
        kind=patches.KIND,
        number=0,
        automatic=automatic,
        data_hash=manifest.data_hash,
        audit={"name": manifest.name, "settings": manifest.settings, **more},
        made_from=made_from,
        changes=changes,
        kept=kept,
    )


def write_patch(patch: Patch, folder: Path) -> tuple[Path, bool]:
    """Write a patch under the next number of the folder; (its path, whether it is new).

    A patch that says the same as one that is there is not written again.
    """
    content = asdict(patch)
    content.pop("number")
    digest = files.sha256_text(files.json_text(content))[:8]

    numbers = [0]
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        match = NUMBERED.fullmatch(path.name)
        if match is None:
            continue
        if path.stem.endswith(digest):
            return path, False
        numbers.append(int(match[1]))

    number = max(numbers) + 1
    path = folder / f"{number:04d}-{digest}.json"
    files.write_text(path, files.json_text(asdict(patch) | {"number": number}))
    return path, True


def _write_and_say(patch: Patch, output: Path) -> Path:
    path, is_new = write_patch(patch, output)
    relabelled = sum(change.new is not None for change in patch.changes)
    dropped = len(patch.changes) - relabelled
    shown = console.show_path(path)
    if not is_new:
        console.say(f"{shown} says this already; nothing is written.")
    by_whom = "without a person: " if patch.automatic else ""
    console.say(
        f"{by_whom}{relabelled:,} rows relabelled, {dropped:,} dropped, {len(patch.kept):,} kept;"
        f" {patch.made_from.get('undecided', 0):,} undecided"
    )
    console.say(f"Patch: {shown} (sha256 {files.sha256(path)[:8]})")
    console.say(f"Next: write patch: {shown} into data.yaml and run {command('etl')} again.")
    return path
