"""How many prototypes an intent should have, by cross-validation on validation rows alone.

python -m benchmarks.trust_prototypes

For each number of prototypes the temperature of a policy is fitted on four fifths of the validation
rows and gives the scores of the rest. No test row is read. The means over the first seeds of each
data set and regime are written into the records, from which `benchmarks/trust_report.py` makes a
table.
"""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from bankintent import cli, console, files
from bankintent.decision.deciding import temperatures_of
from bankintent.decision.material import LabelledRows
from bankintent.decision.prototype_fit import fit_prototypes
from bankintent.decision.prototypes import Nearness
from bankintent.decision.scope_scores import Geometry, gather
from bankintent.decision.temperature_fit import fit_temperature
from bankintent.errors import DataError
from bankintent.measures import calibration, out_of_scope, selective
from bankintent.measures.metrics import softmax
from benchmarks.tables import Record
from benchmarks.trust import RECORDS
from benchmarks.trust_answers import SUFFIX, Answers, Plan
from benchmarks.trust_runs import ANSWERS, plans

NUMBERS = (0, 1, 4, 8, 16, 24)
"""Prototypes of an intent that are compared; 0: one temperature for all texts."""

FOLDS = 5

SEED = 0
"""Of the folds."""

FIGURES = ("nll", "auroc", "aurc", "ece")


def main(
    answers_dir: Annotated[Path, typer.Argument(help="Folder of the files of answers.")] = ANSWERS,
    records: Annotated[Path, typer.Option(help="The JSON file that grows.")] = RECORDS,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds from 1 on.")] = 3,
) -> None:
    """Compare the numbers of prototypes, and write the means over seeds."""
    groups: dict[tuple[str, str], list[Plan]] = {}
    for plan in plans():
        is_there = (answers_dir / f"{plan.name}{SUFFIX}").is_file()
        if is_there and not plan.is_open and plan.seed <= seeds:
            groups.setdefault((plan.data, plan.regime), []).append(plan)
    if not groups:
        raise DataError(
            f"{console.show_path(answers_dir)} holds no answers of models that know every intent",
            "Run python -m benchmarks.trust_runs first",
        )

    found = []
    for (data, regime), group in groups.items():
        every = [Answers(answers_dir / f"{plan.name}{SUFFIX}") for plan in group]
        for number in NUMBERS:
            figures = [cross_validate(answers, number) for answers in every]
            entry: Record = {"data": data, "regime": regime, "prototypes": number}
            entry |= {name: float(np.mean([one[name] for one in figures])) for name in FIGURES}
            found.append(entry)
        console.say(f"{data}, {regime}")

    content: Record = {"runs": []}
    if records.is_file():
        content = json.loads(records.read_text(encoding="utf-8"))
    content["prototypes"] = found
    files.write_text(records, files.json_text(content))


def cross_validate(answers: Answers, number: int) -> dict[str, float]:
    """The figures of scores out of fold, with so many prototypes of an intent.

    AUROC of right against wrong answers, AURC times 1000, ECE (15 bins of equal mass) in per cent.
    """
    rows = answers.known("val")
    near = find_nearness(answers, rows, number)
    fold_of_row = np.random.default_rng(SEED).permutation(len(rows)) % FOLDS
    probabilities = np.empty(rows.logits.shape)
    for fold in range(FOLDS):
        held_out = fold_of_row == fold
        others = None if near is None else Nearness(near.own[~held_out], near.other[~held_out])
        fitted = fit_temperature(rows.take(~held_out), others)
        own = None if near is None else Nearness(near.own[held_out], near.other[held_out])
        temperatures = temperatures_of(fitted, own, int(held_out.sum()))
        probabilities[held_out] = softmax(rows.logits[held_out] / temperatures[:, np.newaxis])

    scores = probabilities.max(axis=1)
    right = rows.right
    passed = out_of_scope.pass_thresholds(scores[right], scores[~right])
    ece = calibration.expected_calibration_error(scores, right, "equal-mass")
    return {
        "nll": calibration.negative_log_likelihood(probabilities, rows.labels),
        "auroc": out_of_scope.auroc(passed),
        "aurc": 1000 * selective.risk_coverage_area(selective.rank(scores, right)),
        "ece": 100 * ece,
    }


def find_nearness(answers: Answers, rows: LabelledRows, number: int) -> Nearness | None:
    """How near each row is to its own and to other intents; None without prototypes."""
    if number == 0:
        return None
    prototypes = fit_prototypes(answers.train, len(answers.labels), number)
    if prototypes is None:
        return None
    return gather(rows.logits, rows.features, Geometry(prototypes)).nearness


if __name__ == "__main__":
    cli.run(main)
