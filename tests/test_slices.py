"""Figures by slice, answers with texts, and columns that are not there."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Run, write_csv, write_yaml

import eval as evaluate
from bankintent.config import EvalConfig
from bankintent.configfile import load
from bankintent.corpus import language
from bankintent.corpus.dataset import SplitData
from bankintent.errors import DataError
from bankintent.inference import evaluation_tables, slicing
from bankintent.inference import labelled as labelled_rows
from bankintent.inference.labelled import EvaluationData, LabelledRows
from bankintent.labels import LabelSchema
from bankintent.measures.metrics import Bootstrap
from bankintent.measures.slices import Answered, Slice, SliceTable, measure_slices

BOOTSTRAP = Bootstrap(200, seed=1)
NO_TRACKING = ("--set", "tracking.enabled=false")
TEXTS = ("i lost my card", "what is the exchange rate", "top up my account now please")
LABELS = ("card_lost", "Exchange", "top_up")


def answers(right: list[bool]) -> Answered:
    """Answers of which these are right, all with the score 0.8."""
    true = np.zeros(len(right), dtype=np.int64)
    predicted = np.where(right, 0, 1)
    return Answered(true, predicted, np.full(len(right), 0.8))


def by_value(table: SliceTable) -> dict[str, Slice]:
    return {one.value: one for one in table.slices}


def test_slices_have_their_own_figures_and_the_worst_is_first() -> None:
    values = ["mail"] * 50 + ["chat"] * 50
    measured = measure_slices(
        "channel",
        values,
        answers([True] * 45 + [False] * 5 + [True] * 40 + [False] * 10),
        BOOTSTRAP,
    )
    assert [one.value for one in measured.slices] == ["chat", "mail"]
    chat = measured.slices[0]
    assert (chat.rows, chat.joined, chat.few) == (50, 1, False)
    assert chat.accuracy == pytest.approx(0.8)
    assert chat.interval == pytest.approx([0.6628, 0.8997], abs=1e-4)
    assert chat.macro_f1 == pytest.approx(2 * 40 / 90)
    assert chat.ece == pytest.approx(0.0)
    assert 0 < chat.noise_floor < chat.noise_floor_high < 0.2


def test_values_with_few_rows_are_joined_and_stand_last() -> None:
    values = ["mail"] * 30 + ["a"] * 3 + ["b"] * 4
    measured = measure_slices("channel", values, answers([True] * 30 + [False] * 7), BOOTSTRAP)
    mail, others = measured.slices
    assert (mail.value, mail.rows) == ("mail", 30)
    assert others.value == "2 values of fewer than 20 rows"
    assert (others.rows, others.joined, others.few, others.accuracy) == (7, 2, True, 0.0)

    alone = measure_slices("channel", ["mail"] * 30 + ["a"] * 7, answers([True] * 37), BOOTSTRAP)
    assert [(one.value, one.few) for one in alone.slices] == [("mail", False), ("a", True)]


def test_where_all_values_have_few_rows_they_are_marked_but_not_a_thousand_of_them() -> None:
    values = ["a"] * 5 + ["b"] * 5
    measured = measure_slices("channel", values, answers([True] * 5 + [False] * 5), BOOTSTRAP)
    assert [(one.value, one.few) for one in measured.slices] == [("b", True), ("a", True)]
    _, rows = evaluation_tables.slice_table(measured)
    assert [row[0] for row in rows] == ["b (*)", "a (*)"]
    note = evaluation_tables.slice_note(measured)
    assert note == "(*) Fewer than 20 rows: the figures say little."

    ids = [str(number) for number in range(500)]
    (everything,) = measure_slices("id", ids, answers([True] * 500), BOOTSTRAP).slices
    assert (everything.joined, everything.rows, everything.few) == (500, 500, False)


def test_answers_out_of_fold_count_as_one_row_a_sentence() -> None:
    once = answers([True] * 20 + [False] * 10)
    twice = answers(([True] * 20 + [False] * 10) * 2)
    single = measure_slices("x", ["a"] * 30, once, BOOTSTRAP).slices[0]
    double = measure_slices("x", ["a"] * 60, twice, replace(BOOTSTRAP, repeats=2)).slices[0]
    assert (double.rows, double.accuracy) == (30, single.accuracy)
    assert double.interval == pytest.approx(single.interval)
    assert double.noise_floor == pytest.approx(single.noise_floor, rel=0.1)


def labelled(texts: list[str], columns: dict[str, list[str | None]]) -> EvaluationData:
    ids = [str(number) for number in range(len(texts))]
    intents = ["card"] * len(texts)
    source = LabelledRows(Path("may.csv"), "may.csv", "0", "test", ids, texts, intents)
    source = replace(source, columns=columns)
    return EvaluationData(
        source, SplitData(ids, texts, [0] * len(ids)), LabelSchema(("card", "pin"))
    )


def test_rows_are_divided_by_columns_and_by_what_is_found() -> None:
    texts = ["a b", "a b c d", " ".join("a" * 15), " ".join("a" * 16)]
    data = labelled(texts, {"channel": ["mail", None, " ", "chat"]})
    found = slicing.find_slicings(data, ["channel", "length", "intent"])
    assert [one.values for one in found] == [
        ["mail", "no value", "no value", "chat"],
        ["1 to 3 words", "4 to 8 words", "9 to 15 words", "16 or more words"],
        ["card"] * 4,
    ]

    own = labelled(texts, {"length": ["9", "9", "9", "7"]})
    assert slicing.find_slicings(own, ["length"])[0].values == ["9", "9", "9", "7"]


def test_the_language_of_each_row_is_found() -> None:
    german = ["Meine Karte ist leider verloren gegangen", "Wie lade ich mein Konto am besten auf?"]
    english = ["my card seems to be lost, what should i do", "how do i add money to my account"]
    codes = language.of_each(german * 5 + english * 5 + ["12345"])
    assert codes == ["de"] * 10 + ["en"] * 10 + [None]

    data = labelled([*german, "4711"], {})
    assert slicing.find_slicings(data, ["language"])[0].values[:2] == ["German", "German"]


def test_a_column_that_is_not_there_is_refused_with_those_that_are() -> None:
    data = labelled(["a"], {"channel": ["mail"]})
    with pytest.raises(DataError) as refusal:
        slicing.find_slicings(data, ["length", "chanel"])
    assert str(refusal.value) == (
        'may.csv has no column "chanel" to divide the rows by. Name one of these with --by:'
        " channel, intent (built in), language (built in), length (built in)."
    )


def write_calls() -> None:
    """A table with a channel, of which one row is unusable and one cell is empty."""
    pairs = []
    for number in range(24):
        place = number % 3
        pairs.append((f"{TEXTS[place]} {number}", "mail" if number < 22 else "", LABELS[place]))
    pairs.insert(1, ("", "chat", "top_up"))
    write_csv(Path("may.csv"), pairs, header="text,channel,label")


def record_of(run: Run, *words: object) -> dict[str, Any]:
    command = ("--checkpoint-path", "bundle", "--data", "may.csv", "--output-dir", "r", *words)
    result = run(evaluate.main, *command, *NO_TRACKING)
    assert result.code == 0, result.err
    record: dict[str, Any] = json.loads(Path("r/metrics.json").read_text())
    return record | {"printed": result.out}


def test_an_evaluation_by_columns_shows_and_records_them(bundle: Path, run: Run) -> None:
    write_calls()
    record = record_of(run, "--by", "channel", "--by", "length", "--with-texts")
    assert [table["by"] for table in record["slices"]] == ["channel", "length"]
    rows = {one["value"]: one["rows"] for one in record["slices"][0]["slices"]}
    assert rows == {"mail": 22, "no value": 2}
    lengths = record["slices"][1]["slices"]
    assert [(one["value"], one["rows"]) for one in lengths] == [("4 to 8 words", 24)]
    assert lengths[0]["accuracy"] == pytest.approx(record["metrics"]["accuracy"])

    for text in (record["printed"], Path("r/report.md").read_text()):
        assert "By channel, the worst first" in text
        assert "no value (*)" in text
        assert "coverage at 99 % precision" in text
        assert "noise floor" in text
    errors = record["calibration"]
    assert errors["equal_width"]["ece"] == pytest.approx(record["metrics"]["ece"])
    assert 0 < errors["equal_mass"]["noise_floor"] < errors["equal_mass"]["noise_floor_high"]
    assert [one["precision"] for one in record["selective"]["coverage_at"]] == [0.98, 0.99]
    assert pq.read_table("r/predictions.parquet")["text"][0].as_py() == "i lost my card 0"


def test_predictions_have_margin_and_second_and_texts_only_where_asked(
    bundle: Path, run: Run
) -> None:
    write_calls()
    columns = ["id", "label", "predicted", "score", "margin", "second", "decision", "reason"]
    assert record_of(run)["slices"] == []
    table = pq.read_table("r/predictions.parquet")
    assert table.column_names == columns
    for row in table.to_pylist():
        assert row["second"] in set(LABELS) - {row["predicted"]}
        # The second of three labels has at least half of what the first leaves.
        assert 0 <= row["margin"] <= row["score"]
        assert row["score"] - row["margin"] >= (1 - row["score"]) / 2 - 1e-6
        # A bundle without a policy answers every row.
        assert (row["decision"], row["reason"]) == ("answer", "")


def test_columns_of_every_format_are_read() -> None:
    write_calls()
    config = write_yaml(Path("e.yaml"), checkpoint_path="none", by=["channel"], with_texts=True)
    settings = load(EvalConfig, config)
    channels = ["mail"] * 22 + [None] * 2
    read = labelled_rows.read_table(Path("may.csv"), settings)
    assert read.columns == {"channel": ["mail"] * 22 + [""] * 2}

    texts = [f"{TEXTS[number % 3]} {number}" for number in range(24)]
    intents = [LABELS[number % 3] for number in range(24)]
    table = pa.table({"channel": channels, "text": texts, "label": intents, "n": range(24)})
    pq.write_table(table, "may.parquet")
    read = labelled_rows.read_table(Path("may.parquet"), settings)
    assert read.columns == {"channel": channels, "n": [str(number) for number in range(24)]}

    # They are not read for nothing.
    without = settings.model_copy(update={"by": []})
    assert labelled_rows.read_table(Path("may.parquet"), without).columns == {}


def test_a_wrong_column_stops_an_evaluation_before_it_begins(bundle: Path, run: Run) -> None:
    write_calls()
    command = ("--checkpoint-path", "bundle", "--data", "may.csv", *NO_TRACKING)
    message = run(evaluate.main, *command, "--by", "chanel").one_line_error()
    assert "Name one of these with --by: channel, intent (built in)" in message
    assert not Path("artifacts/evals").exists()
    repeated = run(evaluate.main, *command, "--by", "length", "--by", "length").one_line_error()
    assert "length stands twice" in repeated
