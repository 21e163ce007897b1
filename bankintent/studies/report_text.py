"""The report of a comparison in Markdown."""

from bankintent import console
from bankintent.studies.figures import ComparisonFigures
from bankintent.studies.plan import size_name
from bankintent.studies.report_tables import (
    HeaderAndRows,
    accuracy_table,
    cost_table,
    paired_tests_table,
    settings_table,
)

HASH_DIGITS = 12
"""Digits of the data's hash that the text shows; report.json holds all of them."""


def report_markdown(figures: ComparisonFigures, pictures: dict[str, str]) -> str:
    """report.md; `pictures` maps file names to captions."""
    lines = [f"# {figures.study}", "", *_introduction(figures), ""]
    lines += ["## Verdicts", "", *_verdicts(figures)]

    lines += _table_section("Accuracy", accuracy_table(figures))
    lines += _table_section("Cost", cost_table(figures))
    if figures.pairs:
        lines += _table_section("Paired tests", paired_tests_table(figures))

    for name, caption in pictures.items():
        lines += [f"![{caption}]({name})", ""]

    lines += ["## Recipes", "", *_recipes(figures), ""]
    lines += ["## How to read this", "", *_notes(figures)]
    return "\n".join(lines) + "\n"


def _table_section(title: str, table: HeaderAndRows) -> list[str]:
    return [f"## {title}", "", *console.markdown_table(*table), ""]


def _introduction(figures: ComparisonFigures) -> list[str]:
    data = figures.data
    runs = figures.runs
    made = figures.made
    hardware = " / ".join(made.hardware)
    precision = " / ".join(made.precision)

    lines = [
        f"{figures.rows:,} {figures.split} rows of {data.name} ({data.intents} intents), data"
        f" `{data.data_hash[:HASH_DIGITS]}`. {runs.finished} of {runs.planned} runs, the first"
        f" finished {made.first_finished}, the last {made.last_finished} UTC, on {hardware},"
        f" training in {precision}.",
    ]

    if runs.missing:
        missing = _group_seeds(runs.missing)
        lines += ["", f"**Not finished, and in no figure here:** {missing}."]
    if figures.split == "val":
        lines += [
            "",
            "These are validation rows, which recipes may be chosen on: no estimate for new"
            " sentences.",
        ]
    return lines


def _group_seeds(run_labels: list[str]) -> str:
    """Labels of runs grouped by cell: `lora, 5 per intent, seeds 4, 5; ...`."""
    seeds_by_cell: dict[str, list[str]] = {}
    for label in run_labels:
        # The form of `PlannedRun.label`.
        cell, seed = label.rsplit(", seed ", 1)
        seeds_by_cell.setdefault(cell, []).append(seed)

    groups = []
    for cell, seeds in seeds_by_cell.items():
        word = "seed" if len(seeds) == 1 else "seeds"
        groups.append(f"{cell}, {word} {', '.join(seeds)}")
    return "; ".join(groups)


def _verdicts(figures: ComparisonFigures) -> list[str]:
    """The verdicts under a line for each size."""
    if not figures.pairs:
        return ["One recipe: there is nothing to compare.", ""]

    lines: list[str] = []
    for size in dict.fromkeys(pair.size for pair in figures.pairs):
        data = "all training data" if size == "all" else size_name(size)
        lines += [f"With {data}:", ""]
        for pair in figures.pairs:
            if pair.size == size:
                lines.append(f"- {pair.verdict}")
        lines.append("")
    return lines


def _recipes(figures: ComparisonFigures) -> list[str]:
    """The choices of sweeps, and every setting of every recipe."""
    lines = []
    for recipe in figures.recipes:
        if recipe.chosen is not None:
            lines.append(f"- {recipe.recipe}: {recipe.chosen.words}.")
    if lines:
        lines.append("")

    return lines + console.markdown_table(*settings_table(figures.recipes))


def _notes(figures: ComparisonFigures) -> list[str]:
    bootstrap = figures.bootstrap
    notes = [
        "Accuracy and macro-F1: mean over seeds; the 95 % interval is Student's t over seeds, cut"
        " to 0 to 100 %. It says how much another seed may change the mean, not another test set.",
        "Differences: 95 % percentile interval of a paired bootstrap that resamples rows and seeds"
        f" together ({bootstrap.resamples:,} resamples, seed {bootstrap.seed}). It errs on the wide"
        " side from three seeds on; two may be too few.",
        "Tests: McNemar's exact two-sided test for each seed, and once on the votes of all seeds"
        " (the label that most seeds predict); p-values are not corrected for the number of pairs.",
        "Training time: from loading the encoder to the last epoch's validation. Run time: to the"
        " published bundle, its checks included. Medians over the seeds whose run was not"
        " interrupted.",
        "Peak memory: the largest over seeds, of the GPU where there is one, otherwise of the"
        " process.",
        "Ships: merged is the plain model that serves by itself; adapter needs its base model as"
        " well.",
        "One sentence, sentences/s (batches of 32): the merged model in float32 on the machine of"
        " the run, medians.",
        "Training data: that many sentences of each intent, or all it has where it has fewer, drawn"
        " with the run's seed; validation and test are whole.",
    ]
    for recipe in figures.recipes:
        if recipe.settings.get("pseudo_labels"):
            notes.append(
                f"{recipe.recipe}: learns from sentences without labels too: those that its size"
                " leaves out, and the data's `unlabelled`."
            )

    notes.append(f"Versions: {_versions(figures)}.")
    return [f"- {note}" for note in notes]


def _versions(figures: ComparisonFigures) -> str:
    sets = []
    for versions in figures.made.versions:
        sets.append(", ".join(f"{name} {version}" for name, version in versions.items()))
    return " / ".join(sets)
