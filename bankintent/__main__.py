"""The commands of `python -m bankintent`: configs for a source, comparisons, scoring, a check-up.

python -m bankintent init my.csv
python -m bankintent doctor
python -m bankintent compare --config configs/compare.yaml
python -m bankintent compare-models artifacts/models/old artifacts/models/new --data test.csv
python -m bankintent score messages.csv scored.parquet --model-dir artifacts/models/quickstart
python -m bankintent explain "my card has not arrived" --model-dir artifacts/models/quickstart
python -m bankintent policy --model-dir artifacts/models/quickstart --set target.precision=0.9
python -m bankintent verify artifacts/models/quickstart
python -m bankintent audit --config configs/audit.yaml
"""

from pathlib import Path
from typing import Annotated

import typer

from bankintent import cli
from bankintent.audit import verbs as audit_verbs
from bankintent.config import (
    AuditConfig,
    CompareConfig,
    CompareModelsConfig,
    DataConfig,
    ExplainConfig,
    PolicyConfig,
    ScoreConfig,
    TrainConfig,
)
from bankintent.configfile import load
from bankintent.errors import ConfigError

OldModel = Annotated[
    Path | None,
    typer.Argument(
        metavar="A",
        help="A model: a bundle, its merged/, or a checkpoint folder.",
        show_default=False,
    ),
]
NewModel = Annotated[
    Path | None,
    typer.Argument(metavar="B", help="The model that may take its place.", show_default=False),
]
SharedData = Annotated[
    Path | None,
    typer.Option(
        "--data",
        "--data-dir",
        help="A labelled table, a folder of tables or ETL's output; by default the data of both"
        " models, where it is the same.",
    ),
]
ReportFolder = Annotated[
    Path | None,
    typer.Option(
        "--output-dir",
        help="Folder of the report.",
        show_default="artifacts/comparisons/<A>-vs-<B>",
    ),
]


UserSource = Annotated[
    str,
    typer.Argument(
        metavar="PATH",
        help="Your sentences: a table (CSV, Excel, JSON, Parquet, ...), a folder with train and"
        " test files, an export of another tool, a Hub name, or `bundled`.",
        show_default=False,
    ),
]
ConfigFolder = Annotated[
    Path | None,
    typer.Option(
        "--output-dir",
        help="Folder for the two files.",
        show_default="configs/<name>",
    ),
]


def init(
    source: UserSource,
    name: Annotated[
        str | None,
        typer.Option(
            "--name", help="Name of the configs, the data and the model.", show_default="after PATH"
        ),
    ] = None,
    output_dir: ConfigFolder = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace a data.yaml and train.yaml that are there."),
    ] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set a key of data.yaml, for example --set label_column=Topic. Repeatable.",
        ),
    ] = None,
) -> None:
    """Look at your sentences and write data.yaml and train.yaml for them, with reasons.

    Reads the source as ETL would and chooses a split and a regime. Measures the encoder on some of
    the sentences, to estimate time and memory of each regime. The two files say it all in comments
    and run as they are; nothing is trained. It takes half a minute for some thousand sentences.

    A source that ETL would refuse is refused with ETL's own line, and nothing is written.
    """
    from bankintent.first_steps import init as first_steps

    name = first_steps.name_of(source, name)
    # Before the user's own, which win.
    keys = [f"output_dir={first_steps.DATA / name}", *(overrides or ())]
    given = load(DataConfig, None, keys, dataset_name=source)
    first_steps.init(given, name, output_dir, overwrite)


def doctor(
    config: Annotated[
        Path | None,
        cli.config_option(
            help="A train.yaml: its encoder, places, precision and tracking are checked. By default"
            " those of make quickstart."
        ),
    ] = None,
    regime: Annotated[
        str | None,
        typer.Option(
            "--regime", metavar="REGIME", help="The regime of that run, where the file has none."
        ),
    ] = None,
    overrides: cli.Overrides = None,
) -> None:
    """Check this machine: packages, processor, memory, disks, ports, tracking, the Hub.

    Prints a line for each check: ok, a note (something to know; nothing fails by it) or a problem
    (a run would stop there), and what to do. It takes some seconds and changes nothing. The exit
    code is 1 where there is a problem, otherwise 0.
    """
    from bankintent.first_steps import doctor as first_steps

    settings = load(TrainConfig, config or first_steps.QUICKSTART, overrides or (), regime=regime)
    if not first_steps.examine(settings):
        raise typer.Exit(1)


def compare(
    config: Annotated[
        Path,
        cli.config_option(help="The comparison's settings, e.g. configs/compare.yaml."),
    ],
    report_only: Annotated[
        bool,
        typer.Option(
            "--report-only",
            help="Write the report from the finished runs, without training.",
        ),
    ] = False,
    overrides: cli.Overrides = None,
) -> None:
    """Run recipes x backbones x training sizes x seeds and write one report of them.

    A finished run is never repeated, and the same command continues an interrupted comparison. The
    exit code is 2 if a run failed; the report then holds the others.
    """
    settings = load(CompareConfig, config, overrides or ())
    # Late imports, so that --help and a wrong config answer at once.
    from bankintent.studies import comparison

    if report_only:
        comparison.report_only(settings)
    else:
        comparison.run_comparison(settings)


def compare_models(
    model_a: OldModel = None,
    model_b: NewModel = None,
    data_dir: SharedData = None,
    label_map: Annotated[
        Path | None,
        typer.Option(
            "--map", metavar="YAML", help="Intents that have other names: `old name: new name`."
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="train, val or test.", show_default="test")
    ] = None,
    output_dir: ReportFolder = None,
    config: Annotated[
        Path | None,
        cli.config_option(help="The same settings as a file; the command line wins over it."),
    ] = None,
    overrides: cli.Overrides = None,
) -> None:
    """Evaluate two trained models on the same rows: is B better than A, and what changes?

    Writes report.md, metrics.json and changed.csv, which lists every text that the two models
    answer differently.
    """
    flags = {
        "model_a": model_a,
        "model_b": model_b,
        "data_dir": data_dir,
        "label_map": label_map,
        "split": split,
        "output_dir": output_dir,
    }
    settings = load(CompareModelsConfig, config, overrides or (), **flags)
    from bankintent.inference import model_comparison, model_comparison_report

    pair = model_comparison.open_pair(settings)
    data = model_comparison.find_common_data(pair, settings)
    a = model_comparison.answer_rows(pair.a, pair, data, settings)
    b = model_comparison.answer_rows(pair.b, pair, data, settings)
    result = model_comparison.compare_answers(pair, data, a, b, settings)

    folder = settings.output_dir or model_comparison.pair_folder(pair, data)
    model_comparison_report.write(folder, result, data, a, b)
    model_comparison_report.show(result, data, folder)


def score(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="IN",
            help="A Parquet, CSV or TSV file; .csv.gz too.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Argument(
            metavar="OUT",
            help="The file to write, in the format of its ending.",
            show_default=False,
        ),
    ] = None,
    model_dir: Annotated[
        Path | None,
        typer.Option("--model-dir", help="A bundle, its merged/, or a classifier's folder."),
    ] = None,
    text_column: Annotated[
        str | None,
        typer.Option("--text-column", help="Column of the sentences; by default found by name."),
    ] = None,
    config: Annotated[
        Path | None,
        cli.config_option(help="The same settings as a file; the command line wins over it."),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace OUT, or discard an unfinished run of another model or input.",
        ),
    ] = False,
    overrides: cli.Overrides = None,
) -> None:
    """Add a label, its score, a decision, its reason, a margin and the second label to every row.

    Rows stay in order and keep their columns; a row without a text gets no answer.
    After an interruption the same command continues with the rows that are not scored yet.
    """
    flags = {"input": source, "output": output, "model_dir": model_dir, "text_column": text_column}
    settings = load(ScoreConfig, config, overrides or (), **flags)

    from bankintent.scoring import score as scoring

    summary = scoring.score(settings, overwrite=overwrite)
    scoring.show(summary)


def explain(
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="TEXT", help="One or more sentences in quotes.", show_default=False),
    ] = None,
    model_dir: Annotated[
        Path | None,
        typer.Option("--model-dir", help="A bundle, its merged/, or a classifier's folder."),
    ] = None,
    brief: Annotated[bool, typer.Option("--brief", help="Print the decisions alone.")] = False,
    overrides: cli.Overrides = None,
) -> None:
    """Say why a text gets its answer.

    Prints the decision, the weight of each word (what the answer loses without it), and the
    training sentences that lie nearest to the text, by the index in the bundle.
    """
    flags = {"texts": texts or None, "model_dir": model_dir, "brief": brief or None}
    settings = load(ExplainConfig, None, overrides or (), **flags)
    # Late imports, so that --help and a wrong option answer at once.
    from bankintent.explanation import showing

    showing.explain_and_show(settings)


def policy(
    model_dir: Annotated[
        Path | None,
        typer.Option("--model-dir", help="The bundle, such as artifacts/models/quickstart."),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir",
            help="ETL's output that it was trained on.",
            show_default="the folder that the bundle records",
        ),
    ] = None,
    restore: Annotated[
        str | None,
        typer.Option(
            "--restore",
            metavar="VERSION",
            help="Take a former policy again, by its version; nothing is fitted.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        cli.config_option(help="The same settings as a file; the command line wins over it."),
    ] = None,
    overrides: cli.Overrides = None,
) -> None:
    """Choose anew when a bundle answers and when it says that it does not know.

    Fits the policy of the bundle on its validation rows for another promise: `--set
    target.precision=0.98`, `--set target.coverage=0.9`, or costs with `--set target.wrong=10 --set
    target.handover=1`. Nothing is trained and no answer changes its intent. The former policy is
    kept in the bundle, and `--restore VERSION` takes it again. Where the validation rows are too
    few for the promise, nothing is changed.
    """
    flags = {"model_dir": model_dir, "data_dir": data_dir}
    settings = load(PolicyConfig, config, overrides or (), **flags)
    if restore is not None and settings.model_fields_set != {"model_dir"}:
        raise ConfigError("--restore takes no other settings than --model-dir")

    # Late imports, so that --help and a wrong config answer at once.
    from bankintent.export import policy_change, policy_swap

    if restore is None:
        policy_swap.show(policy_change.change(settings))
    else:
        policy_swap.show(policy_swap.restore(settings.model_dir, restore))


def verify(
    bundle: Annotated[
        Path,
        typer.Argument(
            metavar="BUNDLE",
            help="A published bundle, such as artifacts/models/quickstart.",
            show_default=False,
        ),
    ],
) -> None:
    """Check every file of a bundle against what was published.

    A line for each fault, and exit code 2, where

    - a file is missing, or has another size or SHA-256 than `manifest.json` lists;
    - a file was added, or something is a link and no file;
    - the labels and the config of a model do not agree;
    - an exported format has no record of its gate.

    Otherwise one line says that the bundle is as published, and the exit code is 0. An edited model
    card (README.md) is a note: people may fill in what it cannot know. Nothing is loaded or
    changed; it takes as long as reading the files. It cannot tell whether manifest.json itself was
    made by somebody else: keep its SHA-256 where you trust it.
    """
    # Late imports, so that --help answers at once.
    from bankintent.bundle import verification

    verdict = verification.verify(bundle)
    verification.show(verdict)
    if verdict.faults:
        raise typer.Exit(2)


def audit(
    context: typer.Context,
    config: Annotated[
        Path | None,
        cli.config_option(help="The audit's settings, e.g. configs/audit.yaml; defaults without."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an audit that holds decisions.")
    ] = False,
    overrides: cli.Overrides = None,
) -> None:
    """Find labels that are likely wrong, near duplicates that disagree, and confusable intents.

    Looks at train and val, never at test. Writes review.csv, which a person fills in, report.md and
    pairs.md to artifacts/audits/NAME. `audit review FOLDER` opens a page to decide on the rows,
    and `audit apply FOLDER` makes the patch that ETL applies.
    """
    if context.invoked_subcommand is not None:
        return

    settings = load(AuditConfig, config, overrides or ())
    # Late imports, so that --help and a wrong config answer at once.
    from bankintent.audit import run

    run.run(settings, overwrite)
    run.say_next(settings.folder)


if __name__ == "__main__":
    cli.run_verbs(
        "Write configs for your sentences (init), check this machine (doctor), compare many"
        " training runs or two models, score a whole table, explain an answer, choose when a model"
        " answers (policy), check the files of a bundle (verify), or find wrong labels (audit).",
        init,
        doctor,
        compare,
        compare_models,
        score,
        explain,
        policy,
        verify,
        cli.Group(audit, (audit_verbs.review, audit_verbs.apply)),
    )
