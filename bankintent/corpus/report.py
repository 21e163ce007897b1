"""What is in the data: counts, lengths, duplicates, contradictions, and rows that leak between splits."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import combinations
from typing import Any

import numpy as np

from bankintent import console
from bankintent.config import DataConfig
from bankintent.corpus.cleaning import Example, Refusal, normalise
from bankintent.corpus.splits import Splits
from bankintent.errors import DataError

NEAR = 0.95
"""Cosine of TF-IDF weighted character 3- to 5-grams from which two texts count as nearly the same."""

KEEP_ORDER = ("test", "val", "train")
"""Of two splits that share a text, the one named first keeps it: evaluation data is never changed."""

FEW = 5
"""Training sentences below which an intent is pointed out."""

Leak = tuple[str, str, float]
"""(id in the kept split, id in the other split, similarity; 1.0 is the same after normalisation)."""


def find_leaks(splits: Splits) -> dict[str, list[Leak]]:
    """For each pair of splits, the rows of the second that stand, nearly word for word, in the first."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = {name: [normalise(example.text) for example in rows] for name, rows in splits.items()}
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), dtype=np.float32)
    vectorizer.fit([text or " " for part in texts.values() for text in part])
    grams = {name: vectorizer.transform(part) for name, part in texts.items() if part}
    leaks: dict[str, list[Leak]] = {}
    for kept, other in combinations((name for name in KEEP_ORDER if splits[name]), 2):
        first = {text: index for index, text in reversed(list(enumerate(texts[kept])))}
        found: list[Leak] = []
        for start in range(
            0, len(texts[other]), 1000
        ):  # blocks keep the product of two large splits in memory
            product = (grams[other][start : start + 1000] @ grams[kept].T).tocsr()
            for offset, text in enumerate(texts[other][start : start + 1000]):
                row = product.getrow(offset)
                best = int(row.data.argmax()) if row.nnz else -1
                other_id = splits[other][start + offset].id
                if text in first:
                    found.append((splits[kept][first[text]].id, other_id, 1.0))
                elif best >= 0 and row.data[best] >= NEAR:
                    similarity = min(round(float(row.data[best]), 3), 0.999)
                    found.append((splits[kept][row.indices[best]].id, other_id, similarity))
        leaks[f"{kept}/{other}"] = found
    return leaks


def apply_leakage(splits: Splits, leaks: dict[str, list[Leak]], policy: str) -> Splits:
    """Report changes nothing, drop removes a leaking row from the later split, fail raises DataError."""
    ids = {other for found in leaks.values() for _, other, _ in found}
    if policy == "fail" and ids:
        examples = "; ".join(f"{a} and {b}" for found in leaks.values() for a, b, _ in found[:2])
        raise DataError(
            f"{len(ids)} rows stand in two splits ({examples})",
            "Mend them, or set leakage: drop or report",
        )
    if policy != "drop":
        return splits
    return {name: [row for row in rows if row.id not in ids] for name, rows in splits.items()}


def unlike_evaluation(rows: list[Example], splits: Splits) -> list[Example]:
    """The rows that val and test hold not even nearly: unlabelled sentences can be spared, whatever the policy."""
    leaks = find_leaks({"test": splits["test"] + splits["val"], "val": [], "train": rows})
    near = {other for _, other, _ in leaks.get("test/train", [])}
    return [row for row in rows if row.id not in near]


def describe(
    splits: Splits,
    unlabelled: dict[str, int] | None,
    leaks: dict[str, list[Leak]],
    refusals: list[Refusal],
    source: dict[str, Any],
    config: DataConfig,
) -> dict[str, Any]:
    """The data report as plain JSON values; of `unlabelled` only how many were read, and kept."""
    everything = [example for rows in splits.values() for example in rows]
    return {
        "source": source,
        "split": config.split,
        "few_shot": config.few_shot,
        "extra_train": sum(row.id.startswith("extra/") for row in splits["train"]),
        "unlabelled": unlabelled,
        "intents": len({example.label_text for example in everything}),
        "splits": {name: _describe_split(rows) for name, rows in splits.items()},
        "refused": {
            "policy": config.bad_rows,
            "count": len(refusals),
            "reasons": dict(Counter(refusal.reason for refusal in refusals).most_common()),
            "rows": [{"id": refusal.id, "reason": refusal.reason} for refusal in refusals],
        },
        "leakage": {
            "policy": config.leakage,
            "near_threshold": NEAR,
            "pairs": {
                pair: {
                    "same": sum(similarity == 1.0 for _, _, similarity in found),
                    "near": sum(similarity < 1.0 for _, _, similarity in found),
                    "rows": [list(leak) for leak in found],
                }
                for pair, found in leaks.items()
            },
        },
        "two_labels": _two_labels(everything),
    }


def _describe_split(rows: list[Example]) -> dict[str, Any]:
    words = [len(row.text.split()) for row in rows]
    counts = Counter(row.label_text for row in rows)
    normalised = Counter(normalise(row.text) for row in rows)
    return {
        "rows": len(rows),
        "intents": len(counts),
        "rows_per_intent": _spread(counts.values()),
        "words": _spread(words),
        "characters": _spread(len(row.text) for row in rows),
        "duplicates": sum(count - 1 for count in normalised.values()),
        "two_labels": len(_two_labels(rows)),
        "per_intent": dict(sorted(counts.items(), key=lambda item: item[0].lower())),
    }


def _spread(values: Iterable[int]) -> dict[str, float]:
    numbers = np.array(list(values))
    if not numbers.size:
        return {}
    return {
        "min": int(numbers.min()),
        "median": float(np.median(numbers)),
        "p95": float(np.quantile(numbers, 0.95)),
        "max": int(numbers.max()),
    }


def _two_labels(rows: list[Example]) -> list[dict[str, Any]]:
    """Texts that, after normalisation, carry more than one label."""
    groups: dict[str, list[Example]] = defaultdict(list)
    for row in rows:
        groups[normalise(row.text)].append(row)
    return [
        {"ids": [row.id for row in group], "labels": sorted({row.label_text for row in group})}
        for group in groups.values()
        if len({row.label_text for row in group}) > 1
    ]


def table(report: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the overview, for the terminal and for Markdown alike."""
    header = ["split", "rows", "intents", "rows/intent", "words", "duplicates", "two labels"]
    body = []
    for name, part in report["splits"].items():
        per, words = part["rows_per_intent"], part["words"]
        body.append(
            [
                name,
                f"{part['rows']:,}",
                str(part["intents"]),
                _range(per),
                _range(words),
                str(part["duplicates"]),
                str(part["two_labels"]),
            ]
        )
    return header, body


def _range(spread: dict[str, float]) -> str:
    if not spread or spread["min"] == spread["max"]:
        return f"{spread['min']}" if spread else ""
    return f"{spread['min']}-{spread['max']} ({spread['median']:g})"


def notes(report: dict[str, Any]) -> list[str]:
    """What a reader should know beside the table, one sentence each."""
    lines = []
    if report["extra_train"]:
        lines.append(f"{report['extra_train']:,} rows of train come from extra_train.")
    if given := report["unlabelled"]:
        known = given["read"] - given["kept"]
        lines.append(
            f"{given['kept']:,} sentences without labels stand beside them, for pseudo_labels"
            + (
                f"; {known:,} more are known, or nearly the same as one of val or test."
                if known
                else "."
            )
        )
    for pair, found in report["leakage"]["pairs"].items():
        kept, other = pair.split("/")
        if found["same"] or found["near"]:
            done = (
                f"dropped from {other}"
                if report["leakage"]["policy"] == "drop"
                else "left in place"
            )
            lines.append(
                f"{found['same']} {other} rows also stand in {kept}, {found['near']} more nearly so; {done} (leakage:"
                f" {report['leakage']['policy']})."
            )
    if report["refused"]["count"]:
        reasons = ", ".join(
            f"{count} x {reason}" for reason, count in report["refused"]["reasons"].items()
        )
        rows = ", ".join(row["id"] for row in report["refused"]["rows"][:5])
        more = ", ..." if report["refused"]["count"] > 5 else ""
        count = report["refused"]["count"]
        lines.append(
            f"{count} {'row was' if count == 1 else 'rows were'} left out: {reasons} ({rows}{more})."
        )
    if report["two_labels"]:
        lines.append(f"{len(report['two_labels'])} texts carry two labels (ids in report.json).")
    rare = {
        label: count
        for label, count in report["splits"]["train"]["per_intent"].items()
        if count < FEW
    }
    if rare and not report["few_shot"]:
        rarest = sorted(rare.items(), key=lambda item: item[1])
        named = ", ".join(f"{label} ({count})" for label, count in rarest[:5])
        more = ", ..." if len(rare) > 5 else ""
        lines.append(
            f"{len(rare)} {'intent has' if len(rare) == 1 else 'intents have'} fewer than {FEW} training sentences and will"
            f" hardly be learned: {named}{more}."
        )
    return lines


def markdown(report: dict[str, Any]) -> str:
    """report.md."""
    source = ", ".join(
        f"{key} {value}" for key, value in report["source"].items() if not isinstance(value, dict)
    )
    hashes = [
        f"`{name}` sha256 `{value}`" for name, value in report["source"].get("files", {}).items()
    ]
    lines = [
        "# Data report",
        "",
        f"Source: {'; '.join([source, *hashes])}. Split: {report['split']}.",
        "",
    ]
    lines += console.markdown_table(*table(report))
    lines += ["", *(f"- {note}" for note in notes(report)), "", "## Lengths", ""]
    keys = ("min", "median", "p95", "max")
    lengths = [
        [f"{name}, {unit}", *(f"{part[unit][key]:g}" for key in keys)]
        for name, part in report["splits"].items()
        for unit in ("words", "characters")
        if part[unit]
    ]
    lines += [*console.markdown_table(["", *keys], lengths), "", "## Rows of each intent", ""]
    names = list(report["splits"])
    intents = sorted(
        {intent for name in names for intent in report["splits"][name]["per_intent"]}, key=str.lower
    )
    counts = [
        [i, *(str(report["splits"][name]["per_intent"].get(i, 0)) for name in names)]
        for i in intents
    ]
    lines += console.markdown_table(["intent", *names], counts)
    return "\n".join(lines) + "\n"
