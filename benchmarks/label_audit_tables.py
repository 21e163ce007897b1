"""The tables and the page of the label audit's benchmark, made of its record alone."""

from collections.abc import Sequence
from typing import get_args

import numpy as np

from bankintent.config.audit import Filter
from bankintent.measures.paired import t_interval
from benchmarks import tables
from benchmarks.tables import Record, Table

KINDS = ("uniform", "pairs")
"""Noise: to any other intent, or to the one that is confused with the row's own most."""

CHOICE_SEEDS = (101, 102)
"""Seeds of the noise by which rules are compared."""

RULES = ((0.6, 0.6), (0.8, 0.6), (0.8, 0.8), (0.8, 1.0), (0.9, 0.8), (0.9, 1.0))
"""Thresholds of the automatic patch that are compared: confidence and agreement."""

COMMAND = "OMP_NUM_THREADS=1 python -m benchmarks.label_audit"


def make_tables(record: Record) -> list[Table]:
    """The tables of the parts that the record has."""
    made = []
    if "found" in record:
        made.append(_found_table(record["found"]))
    if "noise" in record:
        made.append(_noise_table(record["noise"]))
    if "patch" in record:
        made.append(_patch_table(record["patch"]))
    if "choose" in record:
        made.append(_rules_table(record["choose"]))
        made.append(_automatic_table(record["choose"]))
    return made


def _found_table(found: Record) -> Table:
    rows = []
    for name, key in (
        ("labels that the models suspect", "suspected"),
        ("contradicted by a near duplicate", "contradicting"),
    ):
        share = found[key]
        low, high = share["interval"]
        cells = [name, str(share["count"]), str(share["of"])]
        rows.append([*cells, _percent(share["count"] / share["of"]), _range([low, high])])
    counts = [f"{rule} {count}" for rule, count in found["by_rule"].items()]
    note = (
        f"Out of fold {_percent(found['accuracy'])} % of the labels are the answer. Suspected by"
        f" each rule: {', '.join(counts)}. Ying and Thomas (2022) suspect about 14 % of the train"
        " rows, by other methods."
    )
    title = f"Suspected rows of train and val, {found['source']}"
    return Table(title, ["", "rows", "of", "%", "95 %"], rows, note)


def _noise_table(noise: Record) -> Table:
    rows = []
    for kind in KINDS:
        entries = [entry for entry in noise["entries"] if entry["kind"] == kind]
        cells = [kind, str(entries[0]["wrong"])]
        for key in ("recall", "precision"):
            cells += _mean_and_interval([entry[key] for entry in entries])
        right = sum(entry["suggestion_right"] for entry in entries)
        cells.append(_percent(right / sum(entry["right"] for entry in entries)))
        rows.append(cells)
    header = ["noise", "wrong", "recall %", "95 %", "precision %", "95 %", "suggestion right %"]
    seeds = sorted({entry["seed"] for entry in noise["entries"]})
    note = (
        f"{noise['rows']} rows, {_percent(noise['noise'])} % of the labels made wrong, seeds"
        f" {seeds[0]} to {seeds[-1]}; means and 95 % intervals over seeds (Student's t)."
        " Suggestion right: of the wrong labels that were found. A clean copy lacks the rows that"
        " were suspected before; in data as they are, those are listed too."
    )
    return Table("Injected noise on clean copies", header, rows, note)


def _patch_table(patch: Record) -> Table:
    rows = []
    for place, seed in enumerate(patch["seeds"]):
        test = patch["mcnemar"][place]
        rows.append(
            [
                str(seed),
                _percent(patch["before"][place]),
                _percent(patch["after"][place]),
                str(test["only_b"]),
                str(test["only_a"]),
                f"{test['p']:.2f}",
            ]
        )
    rule = patch["rule"]
    done = patch["patch"]
    note = (
        f"The patch relabels {done['relabelled']} rows of train and val (confidence at least"
        f" {rule['confidence']:g}, {_percent(rule['agreement'])} % of the neighbours agree)."
        f" Mean difference {100 * patch['difference']:+.2f} points, 95 % interval"
        f" {_points(patch['interval'])}. {patch['test_rows']} test rows, none of them changed."
    )
    header = ["seed", "before %", "after %", "only before right", "only after right", "McNemar p"]
    return Table(
        "Accuracy on test, head-only, with an automatic patch of train", header, rows, note
    )


def _rules_table(choice: Record) -> Table:
    rows = []
    for rule in get_args(Filter):
        cells = [rule]
        for kind in KINDS:
            entries = _of(choice["rules"], kind=kind, rule=rule)
            for key in ("recall", "precision"):
                cells.append(_percent(np.mean([entry[key] for entry in entries])))
        rows.append(cells)
    header = ["rule", "recall %, uniform", "precision %", "recall %, pairs", "precision %"]
    note = f"Noise of seeds {CHOICE_SEEDS[0]} and {CHOICE_SEEDS[1]}, which no other table has."
    return Table("Rules for suspicion", header, rows, note)


def _automatic_table(choice: Record) -> Table:
    rows = []
    for confidence, agreement in RULES:
        entries = _of(choice["automatic"], confidence=confidence, agreement=agreement)
        changed = sum(entry["changed"] for entry in entries)
        mended = sum(entry["mended"] for entry in entries)
        spoilt = sum(entry["spoilt"] for entry in entries)
        share = _percent(mended / changed) if changed else "0"
        rows.append([f"{confidence:g}", f"{agreement:g}", str(changed), share, str(spoilt)])
    header = ["confidence", "agreement", "changed", "right then %", "spoilt"]
    note = "Both kinds of noise, the same seeds; spoilt: rows that were right before."
    return Table("Rules for an automatic patch", header, rows, note)


def _of(entries: list[Record], **values: object) -> list[Record]:
    """The entries with these values."""
    return [entry for entry in entries if values.items() <= entry.items()]


def _mean_and_interval(values: Sequence[float]) -> list[str]:
    interval = t_interval(np.asarray(values))
    return [_percent(float(np.mean(values))), _range(interval) if interval else "-"]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _range(interval: Sequence[float]) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def _points(interval: Sequence[float]) -> str:
    return f"{100 * interval[0]:+.2f} to {100 * interval[1]:+.2f}"


def render(record: Record) -> str:
    """The content of audit.md."""
    processor = record.get("machine", {}).get("processor") or "a CPU"
    dates = sorted({part["date"] for part in record.values() if "date" in part})
    lines = [
        "# Label audit",
        "",
        f"Made of audit.json by `{COMMAND}`, {', '.join(dates)}, {processor}."
        " Embedded encoder, five folds, one thread. Test rows choose nothing.",
        "",
    ]
    return "\n".join(lines) + "\n" + "\n".join(map(tables.markdown, make_tables(record)))
