"""A source of labelled sentences to Parquet splits, a frozen label schema and a data report.

python -m etl --config configs/data.yaml
python -m etl --config configs/banking77/data.yaml --set dataset_name=path/to/banking77
"""

from pathlib import Path
from typing import Annotated

from bankintent import cli, console
from bankintent.config import DataConfig
from bankintent.configfile import load


def main(
    config: Annotated[
        Path,
        cli.config_option(
            "--cfg-path", help="What to read and how to split it, e.g. configs/data.yaml."
        ),
    ],
    overrides: cli.Overrides = None,
) -> None:
    """Read a dataset, clean it, split it, report on it, and write Parquet for training.

    Writes train/val/test.parquet, labels.json, report.md, report.json and manifest.json to `output_dir`. The same
    config and data always give the same bytes.
    """
    settings = load(DataConfig, config, overrides or ())
    from bankintent.corpus import cleaning, dataset, report, sources, splits
    from bankintent.errors import DataError
    from bankintent.labels import LabelSchema

    source = sources.read(settings)
    extra = sources.read_extra(settings) if settings.extra_train else None
    nameless = sources.read_unlabelled(settings) if settings.unlabelled else None

    cleaned = {name: cleaning.clean(rows, settings.max_chars) for name, rows in source.rows.items()}
    more, more_refused = cleaning.clean(extra.pooled() if extra else [], settings.max_chars)
    sentences, unread = cleaning.clean(
        nameless.pooled() if nameless else [], settings.max_chars, labelled=False
    )
    refusals = (
        [refusal for _, refused in cleaned.values() for refusal in refused] + more_refused + unread
    )
    out_of_scope = {
        name: cleaning.clean(rows, settings.max_chars)[0]
        for name, rows in source.out_of_scope.items()
    }
    if settings.bad_rows == "fail":
        cleaning.require_none(refusals)

    parts = {name: examples for name, (examples, _) in cleaned.items()}
    if len({example.label_text for examples in parts.values() for example in examples}) < 2:
        raise DataError(
            f"{settings.dataset_name} has fewer than two intents with usable rows",
            "Check its label column",
        )
    divided = splits.extend_train(splits.split(parts, settings), more)
    leaks = report.find_leaks(divided)
    divided = report.apply_leakage(divided, leaks, settings.leakage)
    splits.require_usable(divided)
    unlabelled = report.unlike_evaluation(
        splits.only_new([*divided.values(), *out_of_scope.values()], sentences), divided
    )

    names = {example.label_text for examples in divided.values() for example in examples}
    labels = (
        LabelSchema(source.label_order) if source.label_order else LabelSchema.from_names(names)
    )
    beside = {"extra_train": extra, "unlabelled": nameless}
    identity = source.identity | {name: given.identity for name, given in beside.items() if given}
    counts = {"read": len(sentences), "kept": len(unlabelled)} if nameless else None
    figures = report.describe(divided, counts, leaks, refusals, identity, settings)
    record = settings.model_dump(mode="json")
    dataset.write(settings.output_dir, divided, out_of_scope, unlabelled, labels, figures, record)

    title = f"{settings.dataset_name}: {len(labels)} intents (ranges, medians in brackets)"
    console.print_table(title, *report.table(figures))
    for note in report.notes(figures):
        console.say(note)
    console.say(
        f"Written to {console.show_path(settings.output_dir)} (report.md has every intent's rows)."
    )


if __name__ == "__main__":
    cli.run(main)
