"""What the label audit finds: suspected rows, injected noise, the effect of an automatic patch.

python -m benchmarks.label_audit
python -m benchmarks.label_audit --only choose
python -m benchmarks.label_audit --report-only

Run by hand on BANKING77 as `configs/banking77/data.yaml` makes it. Three parts, each written into
one JSON record as soon as it is known; audit.md is made of the record.

- found: the rows of train and val that are suspected.
- noise: 5 % of the labels of a clean copy (the rows that are not suspected) made wrong, to any
  other intent or to the one that the intent is confused with most; how many are found again.
- patch: head-only models of the data as they are and with the automatic patch of train, on the
  official test split, which nothing else here looks at.

`choose` compares rules and answers on other seeds than those that are reported: it is how the
defaults were chosen. With one thread all of it takes about half an hour on two cores.
"""

import contextlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, get_args

import numpy as np
import typer
from numpy.typing import NDArray

from bankintent import cli, console, files
from bankintent.audit import applying, findings, quick, suspects
from bankintent.audit.answers import Answers
from bankintent.audit.applying import AuditManifest, Rule
from bankintent.audit.findings import Findings
from bankintent.audit.pairs import confusion
from bankintent.audit.rows import AuditRows, draw, read_rows
from bankintent.bundle.work import WorkFolder
from bankintent.config import AuditConfig, DataConfig, TrackingConfig, TrainConfig
from bankintent.config.audit import Filter
from bankintent.configfile import load
from bankintent.corpus import dataset, patches
from bankintent.corpus.cleaning import Example
from bankintent.corpus.dataset import Dataset, SplitData
from bankintent.corpus.splits import Corpus, Division, RareIntents
from bankintent.errors import ConfigError, DataError
from bankintent.measures import paired
from bankintent.tracking import Tracker
from bankintent.training import kept
from benchmarks import machine, tables
from benchmarks.label_audit_tables import (
    CHOICE_SEEDS,
    COMMAND,
    KINDS,
    RULES,
    make_tables,
    render,
)
from benchmarks.tables import Record

NOISE = 0.05
"""Share of the labels that are made wrong."""


RECORD = "audit.json"
REPORT = "audit.md"

BOOTSTRAP = 2000
"""Resamples behind an interval of a difference."""


Bools = NDArray[np.bool_]
Labels = NDArray[np.int64]


def main(
    data_dir: Annotated[Path, typer.Option("--data-dir", help="ETL's output.")] = Path(
        "data/banking77"
    ),
    train_config: Annotated[Path, typer.Option(help="The recipe of the models on test.")] = Path(
        "configs/banking77/head-only.yaml"
    ),
    cache_dir: Annotated[Path, typer.Option(help="Folder of the vectors.")] = Path(
        "artifacts/cache"
    ),
    seeds: Annotated[int, typer.Option(min=1, help="Seeds from 1 on.")] = 5,
    only: Annotated[
        str | None, typer.Option("--only", help="choose, found, noise or patch.")
    ] = None,
    output_dir: Annotated[Path, typer.Option(help="Where the record and report go.")] = Path(
        "docs/results/trust"
    ),
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Make the report of the record that is there.")
    ] = False,
) -> None:
    """Measure what the audit finds, and write the record and its report."""
    parts: dict[str, Callable[[Bench], Record]] = {
        "choose": measure_rules,
        "found": measure_found,
        "noise": measure_noise,
        "patch": measure_patch,
    }
    if only is not None and only not in parts:
        raise ConfigError(f"--only {only} is none of {', '.join(parts)}", "Name one of them")

    record_file = output_dir / RECORD
    record: Record = {}
    if record_file.is_file():
        record = json.loads(record_file.read_text(encoding="utf-8"))
    if not report_only:
        bench = Bench(data_dir, cache_dir, train_config, seeds)
        for name in [only] if only else list(parts):
            console.say(f"{name} ...")
            measured = parts[name](bench)
            record[name] = measured | {"date": datetime.now(UTC).date().isoformat()}
            record["machine"] = machine.describe()
            record["command"] = COMMAND
            files.write_text(record_file, files.json_text(record))

    files.write_text(output_dir / REPORT, render(record))
    tables.show(make_tables(record))


class Bench:
    """The data, its vectors, and the audit of the data as they are."""

    def __init__(self, data_dir: Path, cache_dir: Path, train_config: Path, seeds: int) -> None:
        self.data = dataset.load(data_dir)
        self.train_config = train_config
        self.seeds = list(range(1, seeds + 1))
        self.settings = AuditConfig(data_dir=data_dir, cache_dir=cache_dir)
        self.rows = read_rows(self.data)
        self.vectors = quick.read_vectors(self.rows, self.settings)
        self.answers = self.answer(self.rows, self.vectors)
        self.found = findings.find(self.rows, self.answers, self.settings, set())

    def answer(self, rows: AuditRows, vectors: quick.Vectors) -> Answers:
        """Answers out of fold, as the audit makes them without a train_config."""
        folds = draw(rows, self.settings)
        shares = quick.answer(vectors, rows.labels, len(rows.names), folds)
        return Answers(shares, folds.judged, quick.unit_length(vectors), "")

    def clean_copy(self) -> "Copy":
        """The rows that the audit of the data as they are does not list."""
        listed = {row.id for row in self.found.review}
        kept = [place for place, row_id in enumerate(self.rows.rows.ids) if row_id not in listed]
        rows = replace(
            self.rows,
            rows=self.rows.rows.take(kept),
            splits=[self.rows.splits[place] for place in kept],
        )
        matrix = confusion(self.rows.labels, self.answers)
        # An intent is no rival of its own.
        np.fill_diagonal(matrix, 0)
        return Copy(rows, self.vectors[kept], matrix.argmax(axis=1))


class Copy:
    """A part of the rows that counts as clean."""

    def __init__(self, rows: AuditRows, vectors: quick.Vectors, rival: Labels) -> None:
        self.rows = rows
        self.vectors = vectors
        self.rival = rival
        """(labels,) the intent that each is confused with most."""

    def with_noise(self, kind: str, seed: int) -> tuple[AuditRows, Bools]:
        """The rows with wrong labels, and which they are."""
        rng = np.random.default_rng(seed)
        labels = self.rows.labels
        count = round(NOISE * len(labels))
        chosen = rng.choice(len(labels), count, replace=False)

        noisy = labels.copy()
        if kind == "pairs":
            noisy[chosen] = self.rival[labels[chosen]]
        else:
            # A step of 1 to labels - 1 never ends where it began.
            steps = rng.integers(1, len(self.rows.names), count)
            noisy[chosen] = (labels[chosen] + steps) % len(self.rows.names)

        rows = SplitData(self.rows.rows.ids, self.rows.rows.texts, noisy.tolist())
        is_wrong = np.zeros(len(labels), dtype=bool)
        is_wrong[chosen] = True
        return replace(self.rows, rows=rows), is_wrong


def judge(found: Bools, is_wrong: Bools) -> Record:
    """How many of the wrong labels are found, and how many of those found are wrong."""
    right = int((found & is_wrong).sum())
    count = int(found.sum())
    wrong = int(is_wrong.sum())
    return {
        "found": count,
        "wrong": wrong,
        "right": right,
        "recall": right / wrong,
        "precision": right / count if count else 0.0,
    }


def measure_rules(bench: Bench) -> Record:
    """Rules and answers on noise of other seeds than those that are reported."""
    copy = bench.clean_copy()
    entries: list[Record] = []
    automatic: list[Record] = []
    for kind in KINDS:
        for seed in CHOICE_SEEDS:
            rows, is_wrong = copy.with_noise(kind, seed)
            answers = bench.answer(rows, copy.vectors)
            for rule in get_args(Filter):
                found = suspects.find_suspects(rows.labels, answers, rule)
                entries.append({"kind": kind, "seed": seed, "rule": rule} | judge(found, is_wrong))

            result = findings.find(rows, answers, bench.settings, set())
            for thresholds in RULES:
                figures = _judge_rule(result, Rule(*thresholds), copy.rows, is_wrong)
                automatic.append({"kind": kind, "seed": seed} | figures)
    return {"rules": entries, "automatic": automatic}


def _judge_rule(found: Findings, rule: Rule, clean: AuditRows, is_wrong: Bools) -> Record:
    """How many labels an automatic patch sets right, and how many it spoils."""
    patch = applying.from_rule(_manifest(clean.data, "noise"), found.review, rule)
    place = {row_id: number for number, row_id in enumerate(clean.rows.ids)}
    mended = 0
    spoilt = 0
    for change in patch.changes:
        row = place[change.id]
        if change.new == clean.names[clean.rows.labels[row]]:
            mended += 1
        elif not is_wrong[row]:
            spoilt += 1
    return asdict(rule) | {"changed": len(patch.changes), "mended": mended, "spoilt": spoilt}


def measure_found(bench: Bench) -> Record:
    """What is suspected in the data as they are."""
    content = bench.found.to_json()
    # Sentences stay out of the record; of the pairs the names and counts do.
    for pair in content["pairs"]:
        del pair["sentences"]
    by_rule = {}
    for rule in get_args(Filter):
        suspected = suspects.find_suspects(bench.rows.labels, bench.answers, rule)
        by_rule[rule] = int(suspected.sum())
    return content | {
        "source": bench.data.name,
        "data_hash": bench.data.hash,
        "by_rule": by_rule,
    }


def measure_noise(bench: Bench) -> Record:
    """Recall and precision on clean copies with wrong labels."""
    copy = bench.clean_copy()
    entries: list[Record] = []
    for kind in KINDS:
        for seed in bench.seeds:
            rows, is_wrong = copy.with_noise(kind, seed)
            answers = bench.answer(rows, copy.vectors)
            found = suspects.find_suspects(rows.labels, answers, bench.settings.filter)
            figures = judge(found, is_wrong)

            best = answers.probabilities.argmax(axis=1) == copy.rows.labels
            figures["suggestion_right"] = int((best & found & is_wrong).sum())
            entries.append({"kind": kind, "seed": seed} | figures)
            console.say(f"{kind} {seed}: {figures}")
    return {"rows": len(copy.rows), "noise": NOISE, "entries": entries}


def measure_patch(bench: Bench) -> Record:
    """Head-only models with and without the automatic patch, on the untouched test split."""
    rule = Rule()
    patch = applying.from_rule(_manifest(bench.data, "benchmark"), bench.found.review, rule)
    before = {name: bench.data.read(name) for name in ("train", "val", "test")}
    after, applied = _apply(bench.data, before, patch)
    if after["test"] != before["test"]:
        raise DataError("the patch has changed test rows", "Report this")

    true = np.asarray(before["test"].labels)
    right: dict[str, list[Bools]] = {"before": [], "after": []}
    for seed in bench.seeds:
        for name, splits in (("before", before), ("after", after)):
            predicted = _predict(bench, splits["train"], before["test"], seed)
            right[name].append(predicted == true)
            console.say(f"seed {seed}, {name}: {float(right[name][-1].mean()):.4f}")

    b = np.stack(right["after"])
    a = np.stack(right["before"])
    tests = [asdict(paired.mcnemar(*pair)) for pair in zip(b, a, strict=True)]
    return {
        "rule": asdict(rule),
        "patch": applied,
        "seeds": bench.seeds,
        "test_rows": len(true),
        "before": a.mean(axis=1).tolist(),
        "after": b.mean(axis=1).tolist(),
        "difference": float(b.mean() - a.mean()),
        "interval": paired.bootstrap_difference(b, a, BOOTSTRAP, 0),
        "mcnemar": tests,
    }


def _apply(
    data: Dataset, splits: dict[str, SplitData], patch: patches.Patch
) -> tuple[dict[str, SplitData], Record]:
    """The splits as ETL makes them with a patch, and what the patch has done."""
    names = data.labels.names
    parts: dict[str, list[Example]] = {}
    for split, rows in splits.items():
        parts[split] = []
        for row_id, text, label in zip(rows.ids, rows.texts, rows.labels, strict=True):
            parts[split].append(Example(row_id, text, names[label]))

    corpus = Corpus(parts, {}, None, Division("official", ""), RareIntents("refuse"))
    with tempfile.TemporaryDirectory() as folder:
        path, _ = applying.write_patch(patch, Path(folder))
        config = DataConfig(dataset_name=data.name, patch=path)
        patched = patches.apply(corpus, patches.read_all(config), config)

    result = {}
    for split, examples in patched.splits.items():
        result[split] = SplitData(
            [row.id for row in examples],
            [row.text for row in examples],
            [data.labels.label2id[row.label_text] for row in examples],
        )
    return result, asdict(patched.patches[0])


def _predict(bench: Bench, train: SplitData, test: SplitData, seed: int) -> Labels:
    """(test rows,) answers of a model, kept on disk: a run that is cut off goes on from there."""
    recipe = bench.train_config.read_text(encoding="utf-8")
    key = files.sha256_text(json.dumps([train.texts, train.labels, test.texts, seed, recipe]))
    path = bench.settings.cache_dir / "label-audit" / f"{key[:32]}.safetensors"
    with contextlib.suppress(kept.Damaged):
        arrays = kept.read(path)
        if arrays is not None:
            return arrays["predicted"].astype(np.int64)

    predicted = _train(bench, train, test, seed)
    kept.write(path, {"predicted": predicted.astype(np.float32)})
    return predicted


def _train(bench: Bench, train: SplitData, test: SplitData, seed: int) -> Labels:
    """(test rows,) the answers of a model after its last epoch."""
    from bankintent.training.fit import TrainingRun, fit_run
    from bankintent.training.hardware import one_thread
    from bankintent.training.rows import RunRows

    keys = [f"seed={seed}", "keep=last", f"cache_dir={bench.settings.cache_dir}"]
    config = load(TrainConfig, bench.train_config, keys, output_dir=Path("unused"))
    with tempfile.TemporaryDirectory() as folder, console.silence(), one_thread():
        run = TrainingRun(
            config=config,
            data=bench.data,
            # The rows of test stand where a fold holds rows out: they choose nothing.
            rows=RunRows(train, test),
            work=WorkFolder(Path(folder)),
            tracker=Tracker(TrackingConfig(enabled=False)),
            is_fold=True,
        )
        answers = fit_run(run).fit.answers
    return np.asarray(answers[-1].argmax(axis=1))


def _manifest(data: Dataset, name: str) -> AuditManifest:
    return AuditManifest(name, data.hash, list(data.labels.names), {})


if __name__ == "__main__":
    cli.run(main)
