"""The report of a comparison in Markdown."""

from bankintent import console
from bankintent.studies.figures import ComparisonFigures
from bankintent.studies.recommendation import write_recommendation
from bankintent.studies.report_tables import (
    HeaderAndRows,
    accuracy_table,
    cost_table,
    difference_matrix,
    paired_tests_table,
    settings_table,
)

HASH_DIGITS = 12
"""Digits of the data's hash that the text shows; report.json holds all of them."""

DIFFERENCES_NOTE = (
    "Accuracy of the row's recipe minus that of the column's, in points, with its 95 % interval,"
    " and p of McNemar's test on the votes of all seeds. Bold: the interval leaves out zero."
)


Pictures = dict[str, str]
"""File name -> caption."""


def report_markdown(figures: ComparisonFigures, overviews: Pictures, by_intent: Pictures) -> str:
    """report.md: the recommendation and what it rests on first, then the tests and the details."""
    lines = [f"# {figures.study}", "", *_recommendation(figures)]
    lines += [*console.markdown_table(*accuracy_table(figures)), ""]
    lines += _show_pictures(overviews)

    if figures.pairs:
        lines += _table_section("Differences", difference_matrix(figures))
        lines += [DIFFERENCES_NOTE, ""]
    if by_intent:
        lines += ["## Intents", "", *_show_pictures(by_intent)]

    lines += _table_section("Cost", cost_table(figures))
    if figures.pairs:
        lines += _table_section("Tests in detail", paired_tests_table(figures))

    lines += ["## Recipes", "", *_recipes(figures), ""]
    lines += ["## How this was made", "", *_introduction(figures), "", *_notes(figures)]
    return "\n".join(lines) + "\n"


def _show_pictures(pictures: Pictures) -> list[str]:
    lines = []
    for name, caption in pictures.items():
        lines += [f"![{caption}]({name})", ""]
    return lines


def _table_section(title: str, table: HeaderAndRows) -> list[str]:
    return [f"## {title}", "", *console.markdown_table(*table), ""]


def _recommendation(figures: ComparisonFigures) -> list[str]:
    """The recommendation, and what limits it."""
    texts = write_recommendation(figures)
    if figures.runs.missing:
        missing = _group_seeds(figures.runs.missing)
        texts.append(f"**Not finished, and in no figure here:** {missing}.")
    if figures.split == "val":
        texts.append(
            "These are validation rows, which recipes may be chosen on: no estimate for new"
            " sentences."
        )

    lines = []
    for text in texts:
        lines += [text, ""]
    return lines


def _introduction(figures: ComparisonFigures) -> list[str]:
    data = figures.data
    runs = figures.runs
    made = figures.made
    hardware = " / ".join(made.hardware)
    precision = " / ".join(made.precision)

    return [
        f"{figures.rows:,} {figures.split} rows of {data.name} ({data.intents} intents), data"
        f" `{data.data_hash[:HASH_DIGITS]}`. {runs.finished} of {runs.planned} runs, the first"
        f" finished {made.first_finished}, the last {made.last_finished} UTC, on {hardware},"
        f" training in {precision}.",
    ]


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
