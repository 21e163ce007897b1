"""The tables of docs/results/trust/report.md, made of its records alone."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from benchmarks.tables import Record, Table

DATA = {"banking77": "BANKING77", "clinc150": "CLINC150"}
"""Data as tables name them."""

REGIMES = ("head-only", "lora", "full-ft")

SHARES = (25, 50, 75)

PROMISES = ("0.95", "0.98", "0.99")
"""Keys of the promises of a record."""

CHOSEN = "the policy's"
"""Column of the score that was chosen."""

SINGLE_SCORES = ("max_softmax", "max_logit", "energy", "nearest")

PUBLISHED_OPEN = {25: ("86.1", "42"), 50: ("83.8", "62"), 75: ("84.4", "77")}
"""Per cent of known intents -> best published accuracy, and that of the maximum softmax."""

Runs = list[Record]
Figure = Callable[[Record], float]


def select(runs: Runs, **values: object) -> Runs:
    """The runs with these values, in order of their seeds."""
    found = [run for run in runs if values.items() <= run.items()]
    return sorted(found, key=lambda run: run["seed"])


def closed(runs: Runs, data: str, regime: str) -> Runs:
    """The runs that know every intent."""
    return select(runs, data=data, regime=regime, share=None, rotation=None)


def partly_known(runs: Runs, share: int, regime: str) -> Runs:
    """The runs that know this share of the intents of BANKING77."""
    return select(runs, data="banking77", regime=regime, share=share)


def rotations(runs: Runs, regime: str) -> Runs:
    """The runs with a third of the intents of BANKING77 held out."""
    found = select(runs, data="banking77", regime=regime)
    return [run for run in found if run["rotation"] is not None]


def groups(runs: Runs) -> Iterable[tuple[list[str], Runs]]:
    """The first cells of a row, and its runs, for each data set and regime that has runs."""
    for data, title in DATA.items():
        for regime in REGIMES:
            group = closed(runs, data, regime)
            if group:
                yield [title, regime], group


def mean(group: Runs, figure: Figure) -> float:
    """The mean of a figure over runs."""
    return float(np.mean([figure(run) for run in group]))


def each(group: Runs, figure: Figure, decimals: int) -> str:
    """The figure of every run, one after the other."""
    return " ".join(f"{figure(run):.{decimals}f}" for run in group)


def ece(when: str) -> Figure:
    """The calibration error in per cent; `when` is before or after."""
    return lambda run: 100 * run["calibration"][when]["ece"]


def floor(run: Record) -> float:
    """What a calibrated model with these scores shows on average, in per cent."""
    return 100 * run["calibration"]["after"]["noise_floor"]


def high_floor(run: Record) -> float:
    """What 95 of 100 such models show at most, in per cent."""
    return 100 * run["calibration"]["after"]["noise_floor_high"]


def coverage_at(precision: float, key: str = "coverage_at") -> Figure:
    """The most rows, in per cent, that a threshold may answer on test with this precision."""

    def figure(run: Record) -> float:
        points = [point for point in run[key] if point["precision"] == precision]
        return 100 * points[0]["coverage"]

    return figure


def is_met(run: Record, promise: str) -> bool:
    """Whether what was promised lies within, or below, the interval of what test shows."""
    found = run["promises"][promise]
    return bool(found["promised"] and found["interval"][1] >= float(promise))


def accuracy_table(runs: Runs) -> Table:
    """Accuracy and calibration."""
    rows = []
    for names, group in groups(runs):
        accuracy = f"{100 * mean(group, lambda run: run['accuracy']):.2f}"
        changed = sum(run["labels_changed"] for run in group)
        errors = [f"{mean(group, ece(when)):.2f}" for when in ("before", "after")]
        floors = [f"{mean(group, figure):.2f}" for figure in (floor, high_floor)]
        seeds = each(group, ece("after"), 2)
        rows.append([*names, str(len(group)), accuracy, *errors, *floors, seeds, str(changed)])
    header = ["data", "regime", "seeds", "accuracy %", "ECE before %", "ECE after %"]
    header += ["noise floor %", "its 95 %", "after, each seed", "labels changed"]
    note = (
        "Test split; means over seeds. ECE in 15 bins of equal mass; the noise floor is what a"
        " calibrated model with the same scores shows by chance, and 95 of 100 such models show at"
        " most the next figure. Published ECE on CLINC150: BERT 2.18 %, SNGP x10 0.94 %."
    )
    return Table("Accuracy and calibration", header, rows, note)


def coverage_table(runs: Runs) -> Table:
    """How many rows may be answered at a precision."""
    rows = []
    for names, group in groups(runs):
        cells = []
        for precision in (0.98, 0.99):
            before = mean(group, coverage_at(precision, "coverage_at_before"))
            after = coverage_at(precision)
            cells += [f"{before:.1f}", f"{mean(group, after):.1f}", each(group, after, 1)]
        rows.append([*names, *cells])
    header = ["data", "regime", "at 98 %, before", "after", "each seed"]
    header += ["at 99 %, before", "after", "each seed"]
    note = (
        "The most rows, in per cent, that a threshold answers with this precision on the test rows"
        " themselves: what the scores allow, found by looking at test, and no promise. Before: the"
        " softmax of the model; after: the scores of its policy."
    )
    return Table("Coverage that the scores allow", header, rows, note)


def mistake_table(mistakes: Record) -> Table:
    """Mistakes that all models share."""
    rows = []
    for data, found in mistakes.items():
        for one in found["surest"]:
            shares = [f"{100 * one['coverage']:.0f}", f"{100 * one['precision']:.0f}"]
            counts = [f"{np.mean(one['wrong']):.1f}", f"{np.mean(one['shared']):.1f}"]
            rows.append([DATA[data], one["regime"], *shares, str(one["allowed"]), *counts])
    header = ["data", "regime", "surest rows %", "precision %", "may be wrong"]
    header += ["are wrong", "of these shared"]
    totals = []
    for data, found in mistakes.items():
        share = f"{found['shared']} of {found['rows']:,} test rows"
        totals.append(f"{share} of {DATA[data]} have one wrong answer from all {found['models']}")
    note = (
        f"{'; '.join(totals)} models, of every regime and seed. The surest rows by the softmax of"
        " each model; means over seeds. Where all models agree against a label the label may be"
        " the mistake; test labels stay as they are."
    )
    return Table("Mistakes that all models share", header, rows, note)


def promise_table(runs: Runs) -> Table:
    """What promises come to, over seeds."""
    rows = []
    for names, group in groups(runs):
        for promise in PROMISES:
            kept = [run["promises"][promise] for run in group]
            made = [one for one in kept if one["promised"]]
            cells = [f"{100 * float(promise):.0f}", f"{len(made)} of {len(group)}"]
            if not made:
                rows.append([*names, *cells, *5 * ["-"]])
                continue
            above = sum(one["precision"] >= float(promise) for one in made)
            met = sum(is_met(run, promise) for run in group)
            coverages = [one["coverage"] for one in made]
            precision = np.mean([one["precision"] for one in made])
            cells += [f"{100 * np.mean(coverages):.1f}", f"{100 * min(coverages):.1f}"]
            cells.append(f"{100 * precision:.2f}")
            rows.append([*names, *cells, f"{met} of {len(made)}", f"{above} of {len(made)}"])
    header = ["data", "regime", "promise %", "made", "coverage %", "lowest", "precision %"]
    header += ["within its interval", "reached outright"]
    note = (
        "Thresholds are fitted on validation rows at 95 % confidence; coverage and precision are"
        " those of the untouched test rows, means over the seeds that promise, and the lowest"
        " coverage of a seed. Made: no precision is promised where validation rows do not prove it."
        " Within its interval: the upper end of the 95 % interval (Clopper and Pearson) of the"
        " precision on test is not below the promise. Reached outright: the precision on test is at"
        " least the promise."
    )
    return Table("Promises of a precision, and what test shows", header, rows, note)


def seeds_table(runs: Runs) -> Table:
    """What promises come to, for each seed."""
    rows = []
    for names, group in groups(runs):
        for run in group:
            cells = [*names, str(run["seed"])]
            for promise in PROMISES:
                cells.append(_promise_cell(run["promises"][promise]))
            rows.append(cells)
    header = ["data", "regime", "seed", *(f"{100 * float(p):.0f} %" for p in PROMISES)]
    note = "Coverage: precision (95 % interval), all in per cent of test rows."
    return Table("Promises, each seed", header, rows, note)


def _promise_cell(found: Record) -> str:
    if not found["promised"] or found["precision"] is None:
        return "no promise"
    low, high = found["interval"]
    coverage = f"{100 * found['coverage']:.1f}"
    return f"{coverage}: {100 * found['precision']:.2f} ({100 * low:.1f} to {100 * high:.1f})"


def far_table(runs: Runs) -> Table:
    """Sentences that are far from every intent."""
    rows = []
    for names, group in groups(runs):
        rows.append([*names, "no", *_far_cells(group, "out_of_scope")])
        rows[-1].append(_names([run["policy"]["scope"] for run in group]))
        told = [run for run in group if run["out_of_scope_with_examples"]]
        if told:
            key = "out_of_scope_with_examples"
            rows.append([*names, "yes", *_far_cells(told, key)])
            rows[-1].append(_names([run[key]["scope"] for run in told]))
    header = ["data", "regime", "examples", "AUROC", "each seed", "AUPR in", "AUPR out"]
    header += ["FPR95 %", "refused %", "score"]
    note = (
        "Test rows against the 1,000 out-of-scope test sentences of CLINC150. Examples: the policy"
        " was fitted with CLINC150's 200 out-of-scope sentences of train and val; otherwise with"
        " none of them. FPR95: of out-of-scope sentences that pass where 95 % of the test rows do."
        " Refused: as out of scope by the policy, which keeps 97 % of validation rows. Published"
        " AUROC on CLINC150: BERT .942, SNGP .969 to .974, SNGP x10 .973; on BANKING77 the maximum"
        " logit of frozen features has .977."
    )
    return Table("Out of scope: far", header, rows, note)


def _far_cells(group: Runs, key: str) -> list[str]:
    def value(name: str) -> Figure:
        return lambda run: run[key][name]["value"]

    cells = [f"{mean(group, value('auroc')):.4f}", each(group, value("auroc"), 4)]
    cells += [f"{mean(group, value(name)):.4f}" for name in ("aupr_in", "aupr_out")]
    cells.append(f"{100 * mean(group, value('fpr_at_95_tpr')):.1f}")
    cells.append(f"{100 * mean(group, lambda run: run[key]['refused_as_out_of_scope']):.1f}")
    return cells


def _names(scopes: Sequence[dict[str, float]]) -> str:
    """The scores that were chosen, with the number of runs where they differ."""
    names = ["+".join(weights) for weights in scopes]
    different = sorted(set(names))
    if len(different) == 1:
        return different[0]
    return ", ".join(f"{name} {names.count(name)}x" for name in different)


def open_accuracy(run: Record) -> float:
    """Accuracy with all unknown intents as one further class, in per cent."""
    return 100 * float(run["open_accuracy"])


def open_auroc(run: Record) -> float:
    """The area under the ROC curve of the policy's score."""
    return float(run["out_of_scope"]["auroc"]["value"])


def open_table(runs: Runs) -> Table:
    """TEXTOIR's protocol: some of the intents are known."""
    rows = []
    for share in SHARES:
        for regime in REGIMES:
            group = partly_known(runs, share, regime)
            if not group:
                continue
            cells = [f"{share}", regime, f"{mean(group, open_accuracy):.1f}"]
            cells.append(each(group, open_accuracy, 1))
            for key in ("kept_known", "refused_unknown"):
                shares = [run[key] for run in group]
                cells.append(f"{100 * np.mean(shares):.1f}")
            cells.append(f"{mean(group, open_auroc):.3f}")
            rows.append([*cells, *PUBLISHED_OPEN[share]])
    header = ["known %", "regime", "accuracy %", "each seed", "known kept %", "unknown refused %"]
    header += ["AUROC", "best published %", "maximum softmax %"]
    note = (
        "BANKING77, the protocol of TEXTOIR: a model learns some of the intents, and every test row"
        " of the others is to be refused; all of them are one further class of the accuracy. No"
        " sentence of an unknown intent was used for fitting; keep_in_scope: balanced."
    )
    return Table("Out of scope: near, some intents known", header, rows, note)


def score_table(runs: Runs) -> Table:
    """The policy's score beside single ones."""
    rows = []
    for title, group in _open_groups(runs):
        cells = [*title, str(len(group))]
        for name in SINGLE_SCORES:
            values = [run["auroc_of"][name] for run in group]
            cells.append(f"{np.mean(values):.3f}")
        cells += [f"{mean(group, open_auroc):.3f}", each(group, open_auroc, 3)]
        rows.append([*cells, _names([run["scope"] for run in group])])
    header = ["BANKING77", "regime", "runs", *SINGLE_SCORES, CHOSEN, "each run", "chosen score"]
    note = (
        "Area under the ROC curve, test rows of known against those of unknown intents. Frozen"
        " features and a logistic regression have, a third held out: maximum softmax .892, maximum"
        " logit .888, nearest neighbour .915, relative Mahalanobis .904, the standardised sum of"
        " maximum logit and five neighbours .921."
    )
    return Table("Out of scope: near, area under the ROC curve", header, rows, note)


def _open_groups(runs: Runs) -> Iterable[tuple[list[str], Runs]]:
    for share in SHARES:
        for regime in REGIMES:
            group = partly_known(runs, share, regime)
            if group:
                yield [f"{share} % known", regime], group
    for regime in REGIMES:
        group = rotations(runs, regime)
        if group:
            yield ["a third held out", regime], group


def prototype_table(choice: Runs) -> Table:
    """How the number of prototypes was chosen."""
    rows = []
    for one in choice:
        cells = [DATA[one["data"]], one["regime"], str(one["prototypes"])]
        cells += [f"{one['nll']:.4f}", f"{one['auroc']:.4f}", f"{one['aurc']:.2f}"]
        rows.append([*cells, f"{one['ece']:.2f}"])
    header = ["data", "regime", "prototypes", "NLL", "AUROC of right", "AURC x 1000", "ECE %"]
    note = (
        "Five-fold cross-validation on validation rows alone, means of seeds 1 to 3. 0: one"
        " temperature for all texts. The default is 16."
    )
    return Table("The number of prototypes of an intent", header, rows, note)
