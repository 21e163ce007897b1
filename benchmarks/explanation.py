"""What an explanation costs beside an answer, and what an index takes.

python -m benchmarks.explanation --model-dir artifacts/models/quickstart

Each text is answered and explained in turn, alone, on one thread: what else the machine does
meanwhile, both have. Prints a table.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from bankintent import cli, console
from bankintent.bundle import index
from bankintent.decision.deciding import Decisions, decide
from bankintent.explanation.explainer import Explainer, explain
from bankintent.explanation.occlusion import passes
from bankintent.inference import choice
from bankintent.inference.runtime import Runtime
from benchmarks.serving import read_texts

TEXTS = 200


@dataclass(frozen=True)
class Cost:
    """Medians over some texts."""

    passes: float
    """Forward passes of an explanation."""
    answer: float
    """Milliseconds of an answer."""
    explanation: float
    """Milliseconds of an explanation, the answer included."""
    ratio: float
    """Time of an explanation, in answers to the same text."""


def main(
    model_dir: Annotated[Path, typer.Option("--model-dir", help="A bundle.")],
    runtime: Annotated[str, typer.Option(help="auto, torch, onnx, ...")] = "auto",
    texts: Annotated[int, typer.Option(help="Texts to explain.")] = TEXTS,
) -> None:
    """Measure and print."""
    model = choice.find(model_dir, runtime, threads=1).load()  # type: ignore[arg-type]
    cost = measure(model, read_texts()[:texts])

    header = ["runtime", "passes", "answer, ms", "explanation, ms", "answers"]
    row = [model.facts.runtime, f"{cost.passes:.1f}"]
    row += [f"{cost.answer:.1f}", f"{cost.explanation:.1f}", f"{cost.ratio:.1f}"]
    console.print_table("Medians of one text", header, [row])

    folder = model.facts.folder / index.FOLDER
    for path in sorted(folder.glob("*")):
        console.say(f"{index.FOLDER}/{path.name}: {path.stat().st_size / 1e6:.2f} MB")


def measure(model: Runtime, texts: list[str]) -> Cost:
    """The cost of explanations by a loaded model."""
    explainer = Explainer(model.facts.folder, model.facts.labels)
    # The first explanation reads the index.
    explain(texts[:1], model, explainer)

    answers = []
    explanations = []
    for text in texts:
        started = time.perf_counter()
        _answer(model, text)
        answered = time.perf_counter()
        explain([text], model, explainer)
        ended = time.perf_counter()

        answers.append(1000 * (answered - started))
        explanations.append(1000 * (ended - answered))

    ratios = [longer / shorter for longer, shorter in zip(explanations, answers, strict=True)]
    counts = [passes(text) for text in texts]
    return Cost(median(counts), median(answers), median(explanations), median(ratios))


def _answer(model: Runtime, text: str) -> Decisions:
    outputs = model.outputs(model.tokenize([text]))
    return decide(outputs.logits, outputs.features, model.policy)


if __name__ == "__main__":
    cli.run(main)
