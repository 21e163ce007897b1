"""The words of an evaluation's wrong answers, by what they weigh for the intent that was given."""

from dataclasses import replace

from bankintent import process
from bankintent.bundle.layout import Checkpoint
from bankintent.explanation.explainer import Attribution, Explainer, explain
from bankintent.inference import choice
from bankintent.inference.evaluation import Evaluation, WeighedWord, WrongRow
from bankintent.progress import waiting

DECIMALS = 4
"""Of a weight that is written down."""


def beside(result: Evaluation, checkpoint: Checkpoint) -> Evaluation:
    """The evaluation with the words of those wrong answers whose texts it shows.

    It takes a pass of the model for every word of them, so as many texts as are listed.
    """
    texts = [row.text for row in result.wrong or () if row.text is not None]
    if not texts:
        return result

    process.quiet_libraries()
    with waiting("Weighing the words of wrong answers"):
        runtime = choice.find(checkpoint.root, "torch").load()
        explainer = Explainer(checkpoint.root, checkpoint.labels.names)
        explanations = explain(texts, runtime, explainer, count=0)

    words_of_text = {}
    for text, explanation in zip(texts, explanations, strict=True):
        words_of_text[text] = [_weigh(part) for part in explanation.attributions]
    rows = [_with_words(row, words_of_text) for row in result.wrong or ()]
    return replace(result, wrong=rows)


def _weigh(part: Attribution) -> WeighedWord:
    return WeighedWord(part.word, round(part.weight, DECIMALS))


def _with_words(row: WrongRow, words_of_text: dict[str, list[WeighedWord]]) -> WrongRow:
    if row.text is None:
        return row
    return replace(row, words=words_of_text[row.text])
