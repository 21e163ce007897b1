"""The tables of an evaluation, for the terminal and for report.md alike."""

from bankintent.inference.evaluation import Evaluation, NearSentence, WeighedWord, WrongRow
from bankintent.measures import metrics
from bankintent.measures.calibration import CalibrationError
from bankintent.measures.metrics import ConfusedPair, IntentScores
from bankintent.measures.selective import CoverageAt
from bankintent.measures.shares import in_percent
from bankintent.measures.slices import FEW_ROWS, SliceTable

FEW_MARK = "(*)"
"""Behind the name of a slice with few rows."""

HeaderAndRows = tuple[list[str], list[list[str]]]

WIDTHS_ROW = metrics.SHOWN["ece"]
"""The row that the calibration error of bins of one size stands below."""

FLOOR_NOTE = (
    "Noise floor: the calibration error that a perfectly calibrated model with these scores shows"
    " by chance, its mean and what 95 of 100 such models stay below. An error within it is no"
    " evidence of wrong scores."
)
"""What the column of noise floors means."""

COVERAGE_NOTE = (
    "Coverage at a precision: the most rows that can be answered so that this share of the answers"
    " is right, the surest rows first. The threshold is chosen on these very rows: one that is"
    " chosen beforehand on others reaches less, all the more where rows are few."
)
"""What the rows of coverage mean."""


def overview(result: Evaluation) -> HeaderAndRows:
    """The metrics with their intervals, the noise floors of calibration, and coverages."""
    header, body = metrics.overview(result.metrics, result.intervals)
    rows = []
    for row in body:
        if row[0] != WIDTHS_ROW:
            rows.append([*row, ""])
            continue
        rows.append([*row, _show_floor(result.calibration.equal_width)])
        mass = result.calibration.equal_mass
        rows.append(["  in bins of equal size", f"{mass.ece:.4f}", "", _show_floor(mass)])

    for coverage in result.selective.coverage_at:
        rows.append([*_coverage_row(coverage), ""])
    return [*header, "noise floor"], rows


def _show_floor(error: CalibrationError) -> str:
    return f"{error.noise_floor:.4f}, up to {error.noise_floor_high:.4f}"


def _coverage_row(coverage: CoverageAt) -> list[str]:
    name = f"coverage at {coverage.precision:.0%} precision".replace("%", " %")
    return [name, in_percent(coverage.coverage), _show_interval(coverage.interval)]


def _show_interval(interval: list[float]) -> str:
    low, high = interval
    if low == high:
        # Without a mistake no resample differs: such an interval would say nothing.
        return ""
    return f"{100 * low:.2f} to {100 * high:.2f} %"


def slice_table(table: SliceTable, most: int | None = None) -> HeaderAndRows:
    """The first `most` slices of a column, the worst first.

    Of the noise floor the upper end alone, which an error is to be compared with.
    """
    header = [table.by, "rows", "accuracy", "95 % interval", "macro-F1", "ECE", "noise up to"]
    rows = []
    for one in table.slices[:most]:
        low, high = one.interval
        rows.append(
            [
                f"{one.value} {FEW_MARK}" if one.few else one.value,
                f"{one.rows:,}",
                f"{100 * one.accuracy:.1f} %",
                f"{100 * low:.1f} to {100 * high:.1f} %",
                f"{100 * one.macro_f1:.1f} %",
                f"{one.ece:.3f}",
                f"{one.noise_floor_high:.3f}",
            ]
        )
    return header, rows


def slice_note(table: SliceTable, most: int | None = None) -> str | None:
    """What to know about the slices that are shown; None where there is nothing."""
    notes = []
    shown = table.slices[:most]
    if any(one.few for one in shown):
        notes.append(f"{FEW_MARK} Fewer than {FEW_ROWS} rows: the figures say little.")
    left_out = len(table.slices) - len(shown)
    if left_out:
        notes.append(f"{left_out:,} more slices are in report.md.")
    return " ".join(notes) or None


def pairs_table(pairs: list[ConfusedPair]) -> HeaderAndRows:
    """The most frequent mistakes, with sentences."""
    body = []
    for pair in pairs:
        # A line break in a sentence would end the table's row.
        examples = [" ".join(text.split()) for text in pair.examples]
        cells = [pair.true, pair.predicted, str(pair.count)]
        cells.append(" / ".join(examples))
        body.append(cells)
    return ["true", "predicted", "rows", "examples"], body


def intents_table(intents: list[IntentScores]) -> HeaderAndRows:
    """The intents that have rows, the worst F1 first."""
    # An intent without rows has nothing to measure.
    occurring = [row for row in intents if row.support > 0]
    by_f1 = sorted(occurring, key=lambda row: (row.f1, row.intent))

    body = []
    for row in by_f1:
        precision = f"{row.precision:.3f}"
        recall = f"{row.recall:.3f}"
        f1 = f"{row.f1:.3f}"
        body.append([row.intent, precision, recall, f1, str(row.support)])
    return ["intent", "precision", "recall", "F1", "rows"], body


WRONG_NOTE = (
    "At most 50. Beside each are the training sentences that lie nearest to it, by what the last"
    " layer reads: a mistake among sentences of the intent that it was taken for may be a wrong"
    " label, or two intents that cannot be told apart."
)
"""What the table of wrong answers shows."""


SHOWN_WORDS = 3
"""Words that are shown of a wrong answer; metrics.json has all."""


def wrong_table(rows: list[WrongRow]) -> HeaderAndRows:
    """The wrong answers with their nearest training sentences."""
    header = ["row", "intent", "predicted", "score", "nearest training sentences"]
    has_texts = any(row.text is not None for row in rows)
    if has_texts:
        header += ["text", "words that weigh most"]

    body = []
    for row in rows:
        near = " / ".join(map(_show_near, row.neighbours or ()))
        refused = " (refused)" if row.decision != "answer" else ""
        cells = [row.id, row.label, row.predicted + refused, f"{row.score:.3f}", near]
        if has_texts:
            cells.append(" ".join((row.text or "").split()))
            cells.append(_show_words(row.words or []))
        body.append(cells)
    return header, body


def _show_words(words: list[WeighedWord]) -> str:
    """The words that speak most for the answer, the heaviest first."""
    heaviest = sorted(words, key=lambda word: -word.weight)[:SHOWN_WORDS]
    return ", ".join(f"{word.word} {word.weight:+.1f}" for word in heaviest if word.weight > 0)


def _show_near(near: NearSentence) -> str:
    if near.text is None:
        return f"{near.intent} ({near.id})"
    return f"{near.intent}: {' '.join(near.text.split())}"
