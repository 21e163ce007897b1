"""The evaluation of references: reported and logged as `python -m eval` does checkpoints."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bankintent import console, public_names
from bankintent.baselines.references import (
    REFERENCES,
    ReferenceTask,
    ReportProgress,
    label_phrases,
)
from bankintent.config import BaselineConfig

if TYPE_CHECKING:
    from bankintent.corpus.dataset import Dataset
    from bankintent.inference.evaluation import Evaluation
    from bankintent.inference.labelled import EvaluationData


@dataclass(frozen=True)
class ReferenceSubject:
    """A reference, evaluated like a checkpoint."""

    name: str
    """Name of the report."""
    format: str = "reference"


def measure_references(data: "Dataset", config: BaselineConfig) -> Iterator["Evaluation"]:
    """Run one reference after the other; each is written and logged before it is yielded.

    Raises OutputError before the first where the place of a report is taken.
    """
    # Late: it brings matplotlib, for which the refusal of a config need not wait.
    from bankintent.inference import evaluation, evaluation_report
    from bankintent.inference.labelled import EvaluationData
    from bankintent.inference.predicted import Predicted

    train = data.read("train")
    test = EvaluationData.of_split(data, config.split)
    phrases = label_phrases(data.labels, config.label_texts)
    make_task = partial(ReferenceTask, config, data.labels, phrases, train, test.rows.texts)

    # All places first: a refusal after an hour of work would be too late.
    subjects = {name: ReferenceSubject(f"{config.name}-{name}") for name in config.references}
    folders = _report_folders(subjects, test, config)

    for name, subject in subjects.items():
        started = time.perf_counter()
        with show_progress(name) as progress:
            answer = REFERENCES[name].answer(make_task(progress))
        seconds = round(time.perf_counter() - started, 3)

        record = evaluation.ReferenceRecord(
            name=name,
            about=answer.about,
            seconds=seconds,
            config=public_names.settings(config.model_dump(exclude={"tracking"})),
        )
        predicted = Predicted.of_logits(answer.logits)
        result = evaluation.evaluate(predicted, test, subject, config, train)
        result = replace(result, reference=record)
        evaluation_report.write(folders[name], result, predicted, test)
        evaluation.log(result, folders[name], config)
        yield result


def _report_folders(
    subjects: dict[str, ReferenceSubject], data: "EvaluationData", config: BaselineConfig
) -> dict[str, Path]:
    """The report folder of each reference; OutputError where one holds something else."""
    from bankintent.inference import evaluation, evaluation_report

    folders = {}
    for name, subject in subjects.items():
        folder = evaluation.report_folder(subject.name, data.source, config.output_dir)
        evaluation_report.REPORT.require_replaceable(folder)
        folders[name] = folder
    return folders


def announce_reference(result: "Evaluation") -> None:
    """Print the method of a reference in one line."""
    assert result.reference is not None
    console.say(f"{result.reference.name}: {result.reference.about}")


def print_references(results: list["Evaluation"], config: BaselineConfig) -> None:
    """Print all results in one table, and where their reports are."""
    header = ["reference", "accuracy, %", "macro-F1, %", "seconds"]
    rows = []
    for result in results:
        assert result.reference is not None
        row = [result.reference.name]
        for key in ("accuracy", "macro_f1"):
            cell = f"{100 * result.metrics[key]:.2f}"
            # Macro-F1 has no interval where every answer is right.
            if key in result.intervals:
                low, high = result.intervals[key]
                cell += f" ({100 * low:.2f} to {100 * high:.2f})"
            row.append(cell)
        row.append(f"{result.reference.seconds:.1f}")
        rows.append(row)

    first = results[0]
    title = (
        f"References on {first.rows:,} {config.split} rows of {first.data.name},"
        " with 95 % intervals"
    )
    console.print_table(title, header, rows)

    reports = f"{console.show_path(config.output_dir)}/{config.name}-<reference>"
    console.say(f"Reports: {reports} (report.md, confusion.png, ...)")


@contextlib.contextmanager
def show_progress(name: str) -> Iterator[ReportProgress]:
    """A bar in a terminal, gone when the work is finished."""
    from rich import progress

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeRemainingColumn(),
    )
    is_terminal = console.stdout.is_terminal
    with progress.Progress(
        *columns, console=console.stdout, transient=True, disable=not is_terminal
    ) as bar:
        # Each report names the total: only the reference knows its units of work.
        line = bar.add_task(name, total=None)
        yield lambda units, total: bar.update(line, total=total, advance=units)
