"""What calibrated models that may refuse do on test sentences: a record for each trained model.

python -m benchmarks.trust
python -m benchmarks.trust artifacts/trust/answers --records docs/results/trust/records.json

The answers are files of `benchmarks/trust_runs.py`. The project's own code fits each policy: on
validation rows of the known intents, on the features of training rows, and on the general sentences
of this project where the data has no such intents. Test rows are read for the figures alone. A run
that has a record is left out. `benchmarks/trust_report.py` makes tables and pictures of the
records.
"""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from bankintent import cli, console, files
from bankintent.config import DecisionSection, TargetSection
from bankintent.decision.deciding import Decisions, Reason, count_reasons, decide
from bankintent.decision.fitting import fit
from bankintent.decision.material import LabelledRows, Material, NearResult, Rows
from bankintent.decision.policy import Policy
from bankintent.decision.scope_fit import near_results
from bankintent.decision.scope_scores import gather, weighted_sum
from bankintent.errors import DataError
from bankintent.measures import calibration, out_of_scope, selective
from bankintent.measures.metrics import Bootstrap
from bankintent.measures.proportions import clopper_pearson
from bankintent.measures.trust_plots import HISTOGRAM_BINS
from benchmarks.tables import Record
from benchmarks.trust_answers import SUFFIX, Answers
from benchmarks.trust_mistakes import find_shared
from benchmarks.trust_runs import ANSWERS

RECORDS = Path("docs/results/trust/records.json")

PROMISES = (0.95, 0.98, 0.99)
"""Precisions that are promised."""

SINGLE_SCORES = ("max_softmax", "max_logit", "energy", "nearest")
"""Scores that stand beside the one that was chosen."""

EVERYDAY_INTENTS = frozenset({"clinc150"})
"""Data with everyday requests and small talk among their intents: there the general sentences are
not out of scope."""

DRAWN_SEED = 1
"""The seed whose curves and histograms are kept for the pictures."""

SEED = 0
"""Of resamples and simulations."""

BOOTSTRAP = Bootstrap(300, SEED, 1)

Scores = NDArray[np.float64]


def main(
    answers_dir: Annotated[Path, typer.Argument(help="Folder of the files of answers.")] = ANSWERS,
    records: Annotated[Path, typer.Option(help="The JSON file that grows.")] = RECORDS,
) -> None:
    """Measure every run that has no record yet; the file is written after each."""
    paths = sorted(answers_dir.glob(f"*{SUFFIX}"))
    if not paths:
        raise DataError(
            f"{console.show_path(answers_dir)} holds no answers",
            "Run python -m benchmarks.trust_runs first",
        )

    content: Record = {"runs": []}
    if records.is_file():
        content = json.loads(records.read_text(encoding="utf-8"))
    measured = {run["name"]: run for run in content["runs"]}

    for path in paths:
        if path.stem in measured:
            continue
        measured[path.stem] = measure(Answers(path))
        content["date"] = datetime.now(UTC).date().isoformat()
        content["runs"] = [measured[name] for name in sorted(measured)]
        files.write_text(records, files.json_text(content))
        console.say(path.stem)

    content["mistakes"] = measure_mistakes(paths)
    files.write_text(records, files.json_text(content))


def measure_mistakes(paths: list[Path]) -> Record:
    """The mistakes that all models of a data set share which know every intent."""
    models: dict[str, dict[str, list[NDArray[np.float32]]]] = {}
    labels = {}
    for path in paths:
        answers = Answers(path)
        plan = answers.plan
        if not plan.is_open:
            test = answers.labelled("test")
            models.setdefault(plan.data, {}).setdefault(plan.regime, []).append(test.logits)
            labels[plan.data] = test.labels
    return {data: find_shared(of_data, labels[data]) for data, of_data in models.items()}


def measure(answers: Answers) -> Record:
    """The record of one run."""
    facts = answers.facts
    record = {"name": facts.plan.name} | asdict(facts.plan)
    record |= {
        "hardware": facts.hardware,
        "precision": facts.precision,
        "train_seconds": facts.seconds,
        "versions": facts.versions,
    }
    near = hold_out(answers)
    figures = measure_open if facts.plan.is_open else measure_closed
    return record | figures(answers, near)


Near = dict[str, NearResult]


def hold_out(answers: Answers) -> Near:
    """How scores tell held-out intents, by the encoder as it was before training."""
    prototypes = DecisionSection().prototypes
    return near_results(answers.frozen_val, answers.frozen_train, len(answers.labels), prototypes)


def uses_general(answers: Answers) -> bool:
    """Whether the general sentences are out of scope of the data."""
    return answers.plan.data not in EVERYDAY_INTENTS


def gather_material(answers: Answers, near: Near, named: str | None = None) -> Material:
    """What a policy is fitted on; `named` is a list of sentences out of scope."""
    outside = {}
    if uses_general(answers):
        outside["general"] = answers.rows("general")
    if named is not None:
        outside["named"] = answers.rows(named)
    return Material(answers.known("val"), outside, answers.train, near=near)


# All intents are known


def measure_closed(answers: Answers, near: Near) -> Record:
    """A model that knows all intents of its data."""
    policies = fit_promises(answers, near)
    policy = policies[PROMISES[0]]

    test = answers.labelled("test")
    plain = decide(test.logits, None, None)
    decisions = decide(test.logits, test.features, policy)
    before = selective.measure_selective(plain.scores, test.right, BOOTSTRAP)
    after = selective.measure_selective(decisions.scores, test.right, BOOTSTRAP)

    record = {
        "accuracy": float(test.right.mean()),
        "labels_changed": int((decisions.labels != plain.labels).sum()),
        "policy": describe(policy),
        "calibration": {
            "before": calibrated(plain, test),
            "after": calibrated(decisions, test),
        },
        "coverage_at": [asdict(point) for point in after.coverage_at],
        "coverage_at_before": [asdict(point) for point in before.coverage_at],
        "aurc": after.aurc.value,
        "promises": {str(share): realised(one, test) for share, one in policies.items()},
        "out_of_scope": scope_figures(answers, policy),
        "out_of_scope_with_examples": with_examples(answers, near),
    }
    if answers.plan.seed == DRAWN_SEED:
        record["drawn"] = draw(answers, policy)
    return record


def fit_promises(answers: Answers, near: Near) -> dict[float, Policy]:
    """A policy for each precision; the score is chosen once, since no promise changes it."""
    policies: dict[float, Policy] = {}
    chosen = "auto"
    for precision in PROMISES:
        settings = DecisionSection.model_validate(
            {"target": TargetSection(precision=precision), "out_of_scope": chosen}
        )
        policy = fit(gather_material(answers, near), settings, answers.labels).policy
        policies[precision] = policy
        chosen = "+".join(weights_of(policy))
    return policies


def weights_of(policy: Policy) -> dict[str, float]:
    """The scores that a policy sums, with their weights."""
    rule = policy.record.out_of_scope
    if rule is None:
        raise DataError(
            "nothing is refused as out of scope: the data has too few intents to hold some out",
            "Measure runs with at least six intents",
        )
    return rule.weights


def describe(policy: Policy) -> Record:
    """What was fitted."""
    record = policy.record
    return {
        "temperature": asdict(record.temperature),
        "scope": weights_of(policy),
        "candidates": record.figures["out_of_scope"],
    }


def calibrated(decisions: Decisions, rows: LabelledRows) -> Record:
    """The calibration error in 15 bins of equal mass, and its noise floor."""
    return asdict(calibration.calibration_error(decisions.scores, rows.right, SEED))


def realised(policy: Policy, rows: LabelledRows) -> Record:
    """What a promise comes to on test rows."""
    decisions = decide(rows.logits, rows.features, policy)
    answered = decisions.answered
    count = int(answered.sum())
    right = int(rows.right[answered].sum())
    thresholds = policy.record.thresholds
    return {
        "promised": thresholds is not None,
        "threshold": None if thresholds is None else thresholds.shared,
        "coverage": count / len(rows),
        "precision": right / count if count else None,
        "interval": clopper_pearson(right, count).ends(),
        "refused": {str(reason): n for reason, n in count_reasons(decisions).items()},
    }


def with_examples(answers: Answers, near: Near) -> Record | None:
    """The same where sentences out of scope come with the data; None where none do."""
    if answers.plan.data != "clinc150":
        return None
    material = gather_material(answers, near, named="outside_rest")
    policy = fit(material, DecisionSection(), answers.labels).policy
    return scope_figures(answers, policy) | {"scope": weights_of(policy)}


def scope_scores(policy: Policy, rows: Rows) -> Scores:
    """(rows,) how much each looks like the intents; higher is more in scope."""
    evidence = gather(rows.logits, rows.features, policy.geometry)
    return weighted_sum(evidence, weights_of(policy))


def scope_figures(answers: Answers, policy: Policy) -> Record:
    """How well test rows are told from CLINC150's test sentences out of scope."""
    inside = scope_scores(policy, answers.rows("test"))
    rows = answers.rows("outside_test")
    outside = scope_scores(policy, rows)
    figures = out_of_scope.measure_out_of_scope(inside, outside, BOOTSTRAP)

    decisions = decide(rows.logits, rows.features, policy)
    refused = count_reasons(decisions)[Reason.OUT_OF_SCOPE]
    return asdict(figures) | {
        "refused_as_out_of_scope": refused / len(rows),
        "not_answered": float((~decisions.answered).mean()),
    }


def draw(answers: Answers, policy: Policy) -> Record:
    """The curve, the bins and the histograms of one run."""
    test = answers.labelled("test")
    scores = {
        "before": decide(test.logits, None, None).scores,
        "after": decide(test.logits, test.features, policy).scores,
    }
    bins = {}
    for name, values in scores.items():
        groups = calibration.reliability(values, test.right, "equal-mass")
        bins[name] = [asdict(group) for group in groups]

    ranking = selective.rank(scores["after"], test.right)
    rule = policy.record.out_of_scope
    inside = scope_scores(policy, test)
    outside = scope_scores(policy, answers.rows("outside_test"))
    edges = np.histogram_bin_edges(np.concatenate([inside, outside]), HISTOGRAM_BINS)
    return {
        "curve": [asdict(point) for point in selective.curve(ranking)],
        "bins": bins,
        "edges": edges.tolist(),
        "in_scope": np.histogram(inside, edges)[0].tolist(),
        "out_of_scope": np.histogram(outside, edges)[0].tolist(),
        "threshold": None if rule is None else rule.threshold,
    }


# Some of the intents are known


def measure_open(answers: Answers, near: Near) -> Record:
    """A model that knows some of the intents; test rows of the others are out of its scope."""
    settings = DecisionSection(keep_in_scope="balanced", general=uses_general(answers))
    policy = fit(gather_material(answers, near), settings, answers.labels).policy

    test = answers.labelled("test")
    is_known = test.labels >= 0
    decisions = decide(test.logits, test.features, policy)
    kept = decisions.in_scope
    # As in TEXTOIR, all unknown intents are one further class.
    is_right = np.where(is_known, kept & test.right, ~kept)

    def tell_apart(scores: Scores) -> Record:
        figures = out_of_scope.measure_out_of_scope(scores[is_known], scores[~is_known], BOOTSTRAP)
        return asdict(figures)

    return {
        "known": len(answers.labels),
        "accuracy_known": float(test.right[is_known].mean()),
        "open_accuracy": float(is_right.mean()),
        "kept_known": float(kept[is_known].mean()),
        "refused_unknown": float((~kept[~is_known]).mean()),
        "scope": weights_of(policy),
        "candidates": policy.record.figures["out_of_scope"],
        "auroc_of": single_scores(policy, test, is_known),
        "out_of_scope": tell_apart(scope_scores(policy, test)),
    }


def single_scores(
    policy: Policy, test: LabelledRows, is_known: NDArray[np.bool_]
) -> dict[str, float]:
    """The area under the ROC curve of each score by itself."""
    evidence = gather(test.logits, test.features, policy.geometry)
    found = {}
    for name in SINGLE_SCORES:
        values = weighted_sum(evidence, {name: 1.0})
        passed = out_of_scope.pass_thresholds(values[is_known], values[~is_known])
        found[name] = out_of_scope.auroc(passed)
    return found


if __name__ == "__main__":
    cli.run(main)
