"""Pictures of confusions: confused intents beside each other, the worst first, every error counted."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from bankintent.measures import confusion_plots, plots
from bankintent.measures.arrays import Ints
from bankintent.measures.confusion_plots import draw_confusion
from bankintent.measures.metrics import IntentFigures
from bankintent.measures.seriation import order_by_confusion

Figures = dict[str, Figure]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Figures:
    """The figures that are drawn, by file name; they are not written."""
    drawn: Figures = {}
    monkeypatch.setattr(
        confusion_plots, "save_picture", lambda figure, path: drawn.update({path.name: figure})
    )
    return drawn


def names_on(figure: Figure) -> list[str]:
    """The names beside the rows, which are those below the columns."""
    axes = figure.axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [label.get_text() for label in axes.get_xticklabels()]
    return names


def counts_on(figure: Figure) -> dict[tuple[str, str], int]:
    """(true, predicted) -> the count in the cell."""
    names = names_on(figure)
    counts = {}
    for text in figure.axes[0].texts:
        column, row = text.get_position()
        counts[names[int(row)], names[int(column)]] = int(text.get_text().replace(",", ""))
    return counts


def matrix(num_intents: int, errors: dict[tuple[int, int], int]) -> Ints:
    """Ten right answers of each intent, and these errors."""
    counts = 10 * np.eye(num_intents, dtype=int)
    for cell, count in errors.items():
        counts[cell] = count
    return counts


def test_intents_that_are_confused_stand_together() -> None:
    groups = [{0, 5, 9}, {1, 7}, {3, 8, 2}]
    errors = {(0, 5): 2, (5, 9): 3, (9, 0): 1, (7, 1): 4, (3, 8): 1, (8, 2): 1, (2, 3): 2}
    counts = matrix(10, errors)
    before = counts.copy()

    order = order_by_confusion(counts)
    assert sorted(order) == list(range(10))
    for group in groups:
        places = [order.index(intent) for intent in group]
        assert max(places) - min(places) == len(group) - 1
    # Those without any confusion are last, in their own order.
    assert order[-2:] == [4, 6]
    np.testing.assert_array_equal(counts, before)


def test_a_chain_of_confusions_is_laid_out_as_one() -> None:
    counts = matrix(5, {(2, 0): 3, (0, 4): 3, (4, 1): 3, (1, 3): 3})
    assert order_by_confusion(counts) in ([2, 0, 4, 1, 3], [3, 1, 4, 0, 2])


@pytest.mark.parametrize("errors", [{}, {(0, 1): 1}])
def test_there_is_an_order_without_errors_too(errors: dict[tuple[int, int], int]) -> None:
    assert order_by_confusion(matrix(3, errors)) == [0, 1, 2]


def test_few_intents_need_one_picture(figures: Figures, tmp_path: Path) -> None:
    counts = matrix(20, {(3, 17): 4, (17, 3): 1, (2, 9): 1_200})
    names = tuple(f"intent_{number}" for number in range(20))
    captions = draw_confusion(counts, names, tmp_path, "model")

    assert list(figures) == list(captions) == ["confusion.png"]
    shown = counts_on(figures["confusion.png"])
    assert shown["intent_2", "intent_9"] == 1_200
    assert shown["intent_3", "intent_17"] == 4
    assert sum(shown.values()) == counts.sum()
    order = names_on(figures["confusion.png"])
    assert abs(order.index("intent_3") - order.index("intent_17")) == 1


def test_of_many_intents_the_worst_come_first_and_no_error_of_theirs_is_lost(
    figures: Figures, tmp_path: Path
) -> None:
    # Intent n of the first 30 is taken n times for its neighbour in the next 30.
    errors = {(number, 30 + number): number for number in range(1, 30)}
    # Two of the worst are also confused with intents that are not among the worst.
    errors |= {(29, 1): 2, (2, 28): 5}
    counts = matrix(60, errors)
    names = tuple(f"intent_{number}" for number in range(60))
    captions = draw_confusion(counts, names, tmp_path, "model")

    worst = counts_on(figures["confusion.png"])
    order = names_on(figures["confusion.png"])
    expected = [f"intent_{number}" for pair in range(20, 30) for number in (pair, 30 + pair)]
    assert sorted(order) == sorted([*expected, "all other intents"])
    assert order[-1] == "all other intents"
    assert abs(order.index("intent_25") - order.index("intent_55")) == 1
    assert worst["intent_29", "intent_59"] == 29
    assert worst["intent_29", "all other intents"] == 2
    assert worst["all other intents", "intent_28"] == 5

    total = sum(errors.values())
    shown = sum(range(20, 30)) + 2 + 5
    title = figures["confusion.png"].axes[0].get_title(loc="left")
    assert f"({shown} of {total} errors" in title
    assert captions["confusion.png"] == "the 20 of 60 intents with most errors"

    whole = counts_on(figures["confusion-all.png"])
    assert sum(whole.values()) == counts.sum()
    assert len(names_on(figures["confusion-all.png"])) == 60


def test_intents_that_do_not_occur_are_left_out(figures: Figures, tmp_path: Path) -> None:
    counts = np.zeros((4, 4), dtype=int)
    counts[0, 0] = 3
    # Predicted, but never true.
    counts[0, 2] = 1
    draw_confusion(counts, ("a", "b", "c", "d"), tmp_path, "model")
    assert sorted(names_on(figures["confusion.png"])) == ["a", "c"]


def test_a_model_without_errors_has_its_pictures_too(figures: Figures, tmp_path: Path) -> None:
    names = tuple(f"intent_{number}" for number in range(30))
    draw_confusion(matrix(30, {}), names, tmp_path, "model")
    assert len(names_on(figures["confusion.png"])) == 21
    assert len(names_on(figures["confusion-all.png"])) == 30


def test_the_picture_of_very_many_intents_is_bounded(
    figures: Figures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confusion_plots, "MOST_CELLS", 100)
    num_intents = 1001
    counts = matrix(num_intents, {(number, number + 1): 2 for number in range(1000)})
    names = tuple(f"intent_{number}" for number in range(num_intents))
    draw_confusion(counts, names, tmp_path, "model")

    figure = figures["confusion-all.png"]
    axes = figure.axes[0]
    assert not axes.get_xticks().size
    assert not axes.texts
    assert max(figure.get_size_inches()) * figure.dpi <= 3600
    right, errors = (image.get_array() for image in axes.images)
    assert right.shape == errors.shape == (91, 91)
    assert errors.sum() == 2000
    assert right.sum() == pytest.approx(1 + 1000 * 10 / 12)


def test_the_number_of_written_counts_is_bounded(
    figures: Figures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confusion_plots, "MOST_TEXTS", 7)
    draw_confusion(np.arange(9).reshape(3, 3), ("a", "b", "c"), tmp_path, "model")
    shown = counts_on(figures["confusion.png"])
    assert sorted(shown.values()) == [2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    "name",
    [
        "a_name_of_an_intent_with_many_words_and_underscores_in_it_that_goes_on",
        "a name of an intent with many words and spaces in it that goes on and on",
        "finance/cards/lost-or-stolen/abroad.during.a.holiday.in.another.country",
    ],
)
def test_a_long_name_is_broken_at_its_separators_and_nothing_is_lost(name: str) -> None:
    lines = plots.break_name(name).split("\n")
    assert len(lines) > 1
    assert max(map(len, lines)) <= plots.NAME_WIDTH
    separator = " " if " " in name else ""
    assert separator.join(lines) == name
    for line in lines[:-1]:
        assert separator or line[-1] in "_/.-"


def test_names_of_any_length_leave_room_for_the_matrix(tmp_path: Path) -> None:
    names = ("a" * 300, "b_" * 100, "c")
    # A matrix without room would be a warning, which is an error here.
    draw_confusion(matrix(3, {(0, 1): 2}), names, tmp_path, "model")
    intents = [IntentFigures(name, 10, 5.0, 4.0, 1.0) for name in names]
    plots.intent_differences(intents, "a" * 60, "b" * 60, tmp_path / "intents.png")
    assert (tmp_path / "intents.png").stat().st_size > 1000


def test_the_same_counts_give_the_same_bytes(tmp_path: Path) -> None:
    counts = matrix(22, {(0, 1): 1, (2, 3): 1, (4, 5): 2})
    names = tuple(f"intent_{number}" for number in range(22))
    for folder in ("a", "b"):
        draw_confusion(counts, names, tmp_path / folder, "model")
    for name in ("confusion.png", "confusion-all.png"):
        first = (tmp_path / "a" / name).read_bytes()
        assert first.startswith(b"\x89PNG")
        assert first == (tmp_path / "b" / name).read_bytes()
