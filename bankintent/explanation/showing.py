"""An explanation on a screen or in a log."""

from rich.text import Text

from bankintent import console
from bankintent.config import ExplainConfig
from bankintent.decision.deciding import Decision, Reason, decide
from bankintent.explanation.explainer import Explainer, Explanation, explain
from bankintent.explanation.occlusion import SHADES, shades
from bankintent.inference import choice

SHADES_OF_CYAN = ("", "cyan", "bold cyan", "black on cyan", "bold black on cyan")
"""Style of a word that the answer needs, by its degree."""

AGAINST = "underline"
"""Style of a word that speaks against the answer."""

LEGEND = "Weight: log-odds that are lost without the word; below 0 it speaks against it."

ONE_WORD = "No word is weighed: without its only word nothing is left of the text."


def explain_and_show(settings: ExplainConfig) -> None:
    """Load a model, and print the explanation of each text, or the decision alone.

    Raises a UserError where there is no such model.
    """
    runtime = choice.find(settings.model_dir, settings.runtime, settings.threads).load()
    facts = runtime.facts
    if settings.brief:
        outputs = runtime.outputs(runtime.tokenize(settings.texts))
        decisions = decide(outputs.logits, outputs.features, runtime.policy)
        for row, text in enumerate(settings.texts):
            show_decision(text, decisions.of(row), facts.labels)
        return

    explainer = Explainer(facts.folder, facts.labels)
    explanations = explain(settings.texts, runtime, explainer, settings.neighbours)
    for text, explanation in zip(settings.texts, explanations, strict=True):
        show(text, explanation, facts.labels)


def show(text: str, explanation: Explanation, labels: tuple[str, ...]) -> None:
    """Print the decision on a text, its words by their weight, and its nearest sentences."""
    show_decision(text, explanation.decision, labels)
    console.say("")
    _show_words(text, explanation)
    _show_neighbours(explanation)


def show_decision(text: str, decision: Decision, labels: tuple[str, ...]) -> None:
    """Print a text and what is decided on it."""
    console.say(_printable(text))
    for line in describe_decision(decision, labels):
        console.say(f"  {line}")


def describe_decision(decision: Decision, labels: tuple[str, ...]) -> list[str]:
    """The answer, or why there is none, in lines."""
    best = labels[decision.label]
    second = labels[decision.second]
    match decision.reason:
        case Reason.NONE:
            first = f"Answer: {best}, score {decision.score:.3f}"
        case Reason.OUT_OF_SCOPE:
            first = f"No answer: it is none of the {len(labels)} intents (out of scope)"
        case Reason.BELOW_THRESHOLD:
            first = "No answer: the score of the best intent is too low"
        case Reason.CLOSE_CALL:
            first = "No answer: two intents are too close to each other"

    if decision.reason is Reason.NONE:
        return [first, f"Next: {second}, {decision.margin:.3f} below it"]
    return [first, f"Nearest: {best}, score {decision.score:.3f}; then {second}"]


def _show_words(text: str, explanation: Explanation) -> None:
    attributions = explanation.attributions
    if not attributions:
        console.say(ONE_WORD)
        console.say("")
        return

    degrees = shades([attribution.weight for attribution in attributions])
    if console.stdout.is_terminal:
        shaded = Text(_printable(text))
        for attribution, degree in zip(attributions, degrees, strict=True):
            style = AGAINST if degree < 0 else SHADES_OF_CYAN[degree]
            shaded.stylize(style, attribution.start, attribution.end)
        console.stdout.print(shaded, soft_wrap=True)

    rows = []
    for attribution, degree in zip(attributions, degrees, strict=True):
        weight = f"{attribution.weight:+.2f}"
        without = f"{attribution.score_without:.3f}"
        rows.append([_printable(attribution.word), weight, without, _bar(degree)])
    console.print_table("Words", ["word", "weight", "score without", ""], rows)
    console.say(LEGEND)
    console.say("")


def _printable(text: str) -> str:
    """The text, of the same length, without what would steer a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def _bar(degree: int) -> str:
    sign = "-" if degree < 0 else "#"
    return sign * min(abs(degree), SHADES)


def _show_neighbours(explanation: Explanation) -> None:
    if explanation.neighbours is None:
        console.say(f"No nearest sentences: {explanation.no_neighbours}.")
        return

    has_texts = any(near.text is not None for near in explanation.neighbours)
    header = ["intent", "similarity", "row", *(["sentence"] if has_texts else [])]
    rows = []
    for near in explanation.neighbours:
        cells = [near.intent, f"{near.similarity:.3f}", near.id]
        if has_texts:
            cells.append(_printable(near.text or ""))
        rows.append(cells)
    console.print_table("Nearest training sentences", header, rows)
