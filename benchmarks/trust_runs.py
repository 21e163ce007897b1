"""Trains the models behind docs/results/trust and keeps their answers, one file a run.

python -m benchmarks.trust_runs
python -m benchmarks.trust_runs --workers 8 --only 'banking77-third-*'
python -m benchmarks.trust_runs --list

Each run is a training of the project's own, in a process of its own, on the GPU where there is one,
by the recipe `configs/banking77/REGIME.yaml` for both data sets:

- every regime on BANKING77 and on CLINC150, all intents known, seeds 1 to 5;
- BANKING77 with 25, 50 and 75 % of its intents known, which is TEXTOIR's protocol, seeds 1 to 5;
- BANKING77 with a third of its intents held out, 5 rotations.

A run whose file is there is left out, so the command goes on where it was cut off. The form of the
files stands in `benchmarks/trust_answers.py`; `benchmarks/trust.py` measures them. On CPU start one
worker for each core, with OMP_NUM_THREADS=1; on a GPU several workers may share it.
"""

import fnmatch
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from bankintent import cli, console
from bankintent.config import TrackingConfig, TrainConfig
from bankintent.configfile import load
from bankintent.corpus import dataset
from bankintent.corpus.dataset import UNKNOWN, Dataset, SplitData
from bankintent.corpus.general import read_general
from bankintent.errors import ConfigError, DataError, ModelError, UserError
from bankintent.labels import LabelSchema
from benchmarks import machine, trust_answers
from benchmarks.machine import Job
from benchmarks.tables import Record
from benchmarks.trust_answers import SUFFIX, Facts, Ids, Plan

if TYPE_CHECKING:
    from bankintent.training.fit import Fitted

MODULE = "benchmarks.trust_runs"

REGIMES = ("full-ft", "lora", "head-only")

OPEN_REGIMES = ("full-ft", "head-only")
"""Regimes of the runs that know some of the intents."""

SEEDS = range(1, 6)

SHARES = (25, 50, 75)
"""Per cent of the intents that are known."""

LIBRARIES = ("torch", "transformers", "peft", "scikit-learn", "numpy")

ANSWERS = Path("artifacts/trust/answers")


def main(
    banking77: Annotated[Path, typer.Option(help="ETL's output of BANKING77.")] = Path(
        "data/banking77"
    ),
    clinc150: Annotated[
        Path, typer.Option(help="ETL's output of CLINC150, with its out-of-scope sentences.")
    ] = Path("data/clinc150"),
    recipes: Annotated[Path, typer.Option(help="Folder of REGIME.yaml.")] = Path(
        "configs/banking77"
    ),
    output_dir: Annotated[Path, typer.Option(help="Where the files of answers go.")] = ANSWERS,
    workers: Annotated[int, typer.Option(min=1, help="Runs at the same time.")] = 1,
    only: Annotated[str, typer.Option(help="Names of the runs, with * and ?.")] = "*",
    is_list: Annotated[bool, typer.Option("--list", help="Print the names, train none.")] = False,
) -> None:
    """Train the runs that are not there yet, and write a file of answers for each."""
    chosen = choose(only)
    if is_list:
        console.say("\n".join(plan.name for plan in chosen))
        return

    folders = {"banking77": banking77, "clinc150": clinc150}
    require_data(chosen, folders)

    jobs = []
    for plan in chosen:
        output = output_dir / f"{plan.name}{SUFFIX}"
        if not output.is_file():
            jobs.append(make_job(plan, folders, recipes, output))
    console.say(f"{len(chosen)} runs, {len(jobs)} of them to train")

    with ThreadPoolExecutor(workers) as pool:
        failed = [name for name in pool.map(run_one, jobs) if name]
    if failed:
        raise UserError(
            f"{len(failed)} runs failed: {', '.join(failed)}", "Run the command again for them"
        )


def plans() -> Iterator[Plan]:
    """All runs."""
    for data in ("banking77", "clinc150"):
        for seed in SEEDS:
            for regime in REGIMES:
                yield Plan(data, regime, seed)

    for seed in SEEDS:
        for regime in OPEN_REGIMES:
            yield Plan("banking77", regime, seed, rotation=seed)
            for share in SHARES:
                yield Plan("banking77", regime, seed, share=share)


def choose(pattern: str) -> list[Plan]:
    """The runs whose names fit a pattern; ConfigError where none does."""
    chosen = [plan for plan in plans() if fnmatch.fnmatchcase(plan.name, pattern)]
    if not chosen:
        raise ConfigError(f'--only: no run has a name like "{pattern}"', "--list prints them")
    return chosen


def require_data(chosen: list[Plan], folders: dict[str, Path]) -> None:
    """Raise DataError where data that a run needs is missing: now, and not after other runs."""
    for name in sorted({plan.data for plan in chosen}):
        dataset.load(folders[name])
    if all(plan.is_open for plan in chosen):
        return

    clinc = folders["clinc150"]
    if "test" not in dataset.read_out_of_scope(clinc):
        raise DataError(
            f"{clinc} holds no out-of-scope sentences of a test split",
            "Run ETL on data_full.json of CLINC150 with split: official",
        )


def make_job(plan: Plan, folders: dict[str, Path], recipes: Path, output: Path) -> Job:
    """What the process of a run needs to know."""
    return {
        "plan": asdict(plan),
        "data_dir": str(folders[plan.data]),
        "outside_dir": str(folders["clinc150"]),
        "recipe": str(recipes / f"{plan.regime}.yaml"),
        "output": str(output),
    }


def run_one(job: Job) -> str | None:
    """Train one run in a process of its own; its name where that failed."""
    name = Plan(**job["plan"]).name
    try:
        done = machine.run_apart(MODULE, job)
    except UserError as error:
        console.say(f"{name}: {error}")
        return name
    console.say(f"{name}: {100 * done['accuracy']:.2f} % of test, {done['seconds']:.0f} s")
    return None


# In the process of a run


@dataclass(frozen=True)
class Sentences:
    """A list of sentences and their ids among the known intents, -1 where they have none."""

    texts: Sequence[str]
    labels: Ids

    @classmethod
    def without_intent(cls, texts: list[str]) -> "Sentences":
        """Sentences of no intent."""
        return cls(texts, np.full(len(texts), UNKNOWN, dtype=np.int64))


def train(job: Job) -> Record:
    """Train a run and write its answers."""
    plan = Plan(**job["plan"])
    data = dataset.load(Path(job["data_dir"]))
    known = plan.known(len(data.labels))
    lists = read_lists(plan, data, known, Path(job["outside_dir"]))

    names = tuple(data.labels.names[intent] for intent in known)
    known_data = replace(data, labels=LabelSchema(names))
    config = load(
        TrainConfig,
        Path(job["recipe"]),
        [f"seed={plan.seed}", f"data_dir={job['data_dir']}", "tracking.enabled=false"],
        output_dir=Path("unused"),
    )
    with console.silence():
        fitted = fit(config, known_data, known, data)
        arrays = answer(fitted, known_data.labels, lists, config.eval_batch_size)
    arrays |= frozen_vectors(fitted, lists)

    facts = Facts(
        plan=plan,
        labels=list(names),
        hardware=fitted.fit.hardware,
        precision=fitted.fit.precision,
        seconds=fitted.fit.seconds,
        versions={library: version(library) for library in LIBRARIES},
    )
    trust_answers.write(Path(job["output"]), facts, arrays)
    test = lists["test"].labels
    is_right = arrays["test.logits"].argmax(axis=1) == test
    return {"accuracy": float(is_right[test >= 0].mean()), "seconds": fitted.fit.seconds}


def read_lists(plan: Plan, data: Dataset, known: Ids, outside: Path) -> dict[str, Sentences]:
    """The lists of sentences that the model is to answer."""
    lists = {"train": number(rows_of(data.read("train"), known), known)}
    for name in ("val", "test"):
        lists[name] = number(data.read(name), known)
    lists["general"] = Sentences.without_intent(read_general())
    if plan.is_open:
        return lists

    by_split = dataset.read_out_of_scope(outside)
    rest = by_split.get("train", []) + by_split.get("val", [])
    lists["outside_test"] = Sentences.without_intent(by_split.get("test", []))
    lists["outside_rest"] = Sentences.without_intent(rest)
    return lists


def rows_of(split: SplitData, intents: Ids) -> SplitData:
    """The rows of these intents."""
    return split.take(np.flatnonzero(np.isin(split.labels, intents)).tolist())


def number(split: SplitData, known: Ids) -> Sentences:
    """The rows with their ids among the known intents."""
    own = np.full(max(split.labels) + 1, UNKNOWN, dtype=np.int64)
    is_there = known < len(own)
    own[known[is_there]] = np.flatnonzero(is_there)
    return Sentences(split.texts, own[split.labels])


def fit(config: TrainConfig, known_data: Dataset, known: Ids, data: Dataset) -> "Fitted":
    """Train on the rows of the known intents, with ids among those."""
    # Late, because torch takes seconds.
    from bankintent.bundle.work import WorkFolder
    from bankintent.tracking import Tracker
    from bankintent.training.fit import TrainingRun, fit_run
    from bankintent.training.rows import RunRows

    parts = {}
    for name in ("train", "val"):
        split = rows_of(data.read(name), known)
        parts[name] = replace(split, labels=number(split, known).labels.tolist())

    with tempfile.TemporaryDirectory() as folder:
        run = TrainingRun(
            config=config,
            data=known_data,
            rows=RunRows(parts["train"], parts["val"]),
            work=WorkFolder(Path(folder)),
            tracker=Tracker(TrackingConfig(enabled=False)),
        )
        return fit_run(run)


def answer(
    fitted: "Fitted", labels: LabelSchema, lists: dict[str, Sentences], batch_size: int
) -> dict[str, NDArray[np.float32] | Ids]:
    """The arrays of every list, in float32; an adapter is merged, as it is when it is published."""
    from peft import PeftModel

    from bankintent.inference.predictor import Predictor

    model = fitted.model
    if isinstance(model, PeftModel):
        model = model.merge_and_unload(safe_merge=True)
    predictor = Predictor(model, fitted.backbone.tokenizer, labels)

    arrays: dict[str, NDArray[np.float32] | Ids] = {}
    for name, sentences in lists.items():
        outputs = predictor.outputs(sentences.texts, batch_size)
        if outputs.features is None:
            raise ModelError(
                f"{fitted.backbone.name} gives no features of a text",
                "Name an encoder whose last layer reads one vector of each text",
            )
        arrays[f"{name}.logits"] = outputs.logits
        arrays[f"{name}.features"] = outputs.features
        arrays[f"{name}.labels"] = sentences.labels
    return arrays


def frozen_vectors(fitted: "Fitted", lists: dict[str, Sentences]) -> dict[str, NDArray[np.float32]]:
    """What the encoder made of train and val before it was trained; 0 where it was not asked."""
    if fitted.frozen is None:
        raise ConfigError(
            "the recipe does not ask the encoder before it is trained",
            "Set head_init: probe in it",
        )
    is_known = lists["val"].labels >= 0
    trained = fitted.frozen.train[: len(lists["train"].texts)].numpy()
    val = np.zeros((len(is_known), trained.shape[1]), dtype=np.float32)
    val[is_known] = fitted.frozen.val.numpy()
    return {"train.frozen": trained, "val.frozen": val}


if __name__ == "__main__":
    if machine.has_job():
        machine.answer_job(train)
    else:
        cli.run(main)
