"""Corrections of labels that a review has made: read from patch files, applied to train and val.

A row is found by its text and its label, so that a patch survives other rows that come and go. The
files hold hashes of the texts, not the texts.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from bankintent import files, typed_json
from bankintent.config import DataConfig
from bankintent.corpus.cleaning import Example
from bankintent.corpus.cross_split import draw_folds
from bankintent.corpus.splits import EXTRA_PREFIX, AppliedPatch, Corpus, Splits, intents, pool
from bankintent.distribution import command
from bankintent.errors import DataError
from bankintent.files import JsonObject
from bankintent.texts import list_some

FORMAT = 1
"""Version of the form of a patch file."""

KIND = "bankintent label patch"
"""What a patch file says that it is."""

Key = tuple[str, str]
"""sha256 of a text, and the label that it has."""


@dataclass(frozen=True)
class Change:
    """What a review has decided of one row."""

    id: str
    """Of the row that was looked at; for people, since rows are found by text and label."""
    text_sha256: str
    given: str
    """The label that it had."""
    new: str | None
    """The label that it gets; None where the row goes."""


@dataclass(frozen=True)
class Kept:
    """A row whose label a person has found to be right."""

    id: str
    text_sha256: str
    given: str


@dataclass(frozen=True)
class Patch:
    """A patch file."""

    format: int
    kind: str
    number: int
    """Counted from 1 in its folder."""
    automatic: bool
    """Whether no person has looked at the rows."""
    data_hash: str
    """Of the data that were audited."""
    audit: JsonObject
    """Name and settings of the audit; with `automatic`, the rule too."""
    made_from: dict[str, int]
    """Rows that were listed, by what was decided of them."""
    changes: list[Change]
    kept: list[Kept] = field(default_factory=list)


def text_key(text: str) -> str:
    """sha256 of a text as ETL writes it."""
    return files.sha256_text(text)


def read(path: Path) -> Patch:
    """Read a patch file; DataError where it is none, or of a later form."""
    patch: Patch | None = None
    try:
        patch = typed_json.parse(Patch, path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"the patch {path} cannot be read ({error.strerror})", "Correct patch: in data.yaml"
        ) from None
    except ValueError:
        # Said below, as of a file that is no patch at all.
        pass

    if patch is None or patch.kind != KIND:
        raise DataError(
            f"{path} is no patch of labels", f"Make one with {command('audit apply')} FOLDER"
        )
    if patch.format != FORMAT:
        raise DataError(
            f"{path} has the form {patch.format}, and this version reads {FORMAT}",
            "Make it again with this version",
        )
    _require_one_decision(patch, path)
    return patch


def _require_one_decision(patch: Patch, path: Path) -> None:
    """Raise DataError where a patch gives the same row two new labels."""
    decided: dict[Key, str | None] = {}
    for change in patch.changes:
        key = (change.text_sha256, change.given)
        if decided.setdefault(key, change.new) != change.new:
            raise DataError(
                f"{path} decides twice, and differently, of the row {change.id}",
                "Remove one of the two",
            )


def read_all(config: DataConfig) -> dict[Path, Patch]:
    """The patches that a config names, in order; DataError where one of them is unusable."""
    paths = config.patch
    if paths is None:
        return {}
    listed = paths if isinstance(paths, list) else [paths]
    return {path: read(path) for path in listed}


def apply(corpus: Corpus, patches: dict[Path, Patch], config: DataConfig) -> Corpus:
    """The corpus with the labels of the patches; its own `patches` say what each has done.

    Only rows of train and val change. Where cross-validation judges, all rows are those of train,
    and the folds are drawn anew. Raises DataError where a new label is no intent of the data.
    """
    if not patches:
        return corpus

    for path, patch in patches.items():
        _require_known(patch, path, intents(pool(corpus.splits)))
        splits, record = _apply_one(corpus.splits, patch, path)
        corpus = replace(corpus, splits=splits, patches=[*corpus.patches, record])
    return _with_folds(corpus, config)


def _require_known(patch: Patch, path: Path, known: set[str]) -> None:
    wanted = {change.new for change in patch.changes if change.new is not None}
    unknown = sorted(wanted - known)
    if unknown:
        raise DataError(
            f"{path} gives labels that are no intents of this data: {list_some(unknown)}",
            "Rename them in the file, or make the patch again for this data",
        )


def _apply_one(splits: Splits, patch: Patch, path: Path) -> tuple[Splits, AppliedPatch]:
    """The splits with one patch applied, and what it has done."""
    changes = {(change.text_sha256, change.given): change for change in patch.changes}
    done: Counter[str] = Counter()
    matched: set[Key] = set()

    patched: Splits = {}
    for name, rows in splits.items():
        found = [_find(row, changes) for row in rows]
        matched.update(_keys(found))
        if name == "test":
            patched[name] = rows
            done["in_test"] += len(list(_keys(found)))
            continue

        patched[name] = []
        for row, change in zip(rows, found, strict=True):
            if change is None:
                patched[name].append(row)
            elif change.new is None:
                done["dropped"] += 1
            else:
                done["relabelled"] += 1
                patched[name].append(replace(row, label_text=change.new))

    record = AppliedPatch(
        file=path.name,
        sha256=files.sha256(path),
        automatic=patch.automatic,
        relabelled=done["relabelled"],
        dropped=done["dropped"],
        in_test=done["in_test"],
        unmatched=len(changes.keys() - matched),
    )
    return patched, record


def _find(row: Example, changes: dict[Key, Change]) -> Change | None:
    return changes.get((text_key(row.text), row.label_text))


def _keys(found: Iterable[Change | None]) -> Iterable[Key]:
    for change in found:
        if change is not None:
            yield change.text_sha256, change.given


def _with_folds(corpus: Corpus, config: DataConfig) -> Corpus:
    """The corpus with folds of its rows as they are now, where it has folds."""
    if corpus.folds is None:
        return corpus

    train = corpus.splits["train"]
    # Rows of extra_train stand at the end and are always trained on.
    own = [row for row in train if not row.id.startswith(EXTRA_PREFIX)]
    folds = draw_folds(own, config).extended(len(train) - len(own))
    if not folds.judged.any():
        raise DataError("the patch leaves no intent with enough rows to be judged", "Drop fewer")
    return replace(corpus, folds=folds)


def notes(patches: Iterable[AppliedPatch]) -> list[str]:
    """A sentence for people about each patch."""
    lines = []
    for patch in patches:
        made = "made without a person, " if patch.automatic else ""
        line = (
            f"Patch {patch.file} ({made}sha256 {patch.sha256[:8]}): {patch.relabelled:,} rows"
            f" relabelled, {patch.dropped:,} dropped."
        )
        if patch.in_test:
            line += f" {patch.in_test:,} test rows that it names are left alone."
        if patch.unmatched:
            line += f" {patch.unmatched:,} of its rows no longer stand in the data."
        lines.append(line)
    return lines
