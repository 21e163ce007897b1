"""What rows mean to ETL: which are refused and when that is an error, how labels are read, what is pointed out."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import REPOSITORY, Result, Run, train_config, write_csv, write_yaml
from tiny_models import rows

import etl
import multiregime
from bankintent.config import DataConfig
from bankintent.corpus import cleaning, dataset, label_notes, language
from bankintent.corpus.refusals import RefusedRow
from bankintent.corpus.rows import Reading, Row, Source, Sources
from bankintent.errors import DataError
from bankintent.labels import LabelSchema

OUT = Path("out")


def run_etl(run: Run, source: Path, **more: object) -> Result:
    config = write_yaml(Path("data.yaml"), dataset_name=str(source), output_dir=str(OUT), **more)
    return run(etl.main, "--config", config)


def read_report() -> dict[str, Any]:
    return dict(json.loads((OUT / "report.json").read_text()))


def label_names() -> tuple[str, ...]:
    return dataset.load(OUT).labels.names


def write_jsonl(path: Path, pairs: list[tuple[str, Any]]) -> Path:
    records = [{"text": text, "label": label} for text, label in pairs]
    path.write_text("\n".join(map(json.dumps, records)))
    return path


def flat(text: str) -> str:
    """Printed lines as one."""
    return " ".join(text.split())


def test_few_refused_rows_are_listed_and_more_are_an_error(run: Run) -> None:
    three = [("  ", "top_up"), ("no label", ""), ("", "Exchange")]
    source = write_csv(Path("a.csv"), [*rows(), *three])
    result = run_etl(run, source)
    assert result.code == 0, result.err
    assert "3 rows were left out: 2 x empty text, 1 x empty label" in flat(result.out)

    source = write_csv(Path("a.csv"), [*rows(), *three, ("", "card_lost")])
    message = run_etl(run, source).one_line_error()
    assert "4 of the 64 rows" in message
    assert "more than 5 % (3 x empty text, 1 x empty label, the first at a.csv" in message
    assert "bad_rows: drop" in message

    assert run_etl(run, source, bad_rows="drop").code == 0
    assert read_report()["refused"]["count"] == 4


@pytest.mark.parametrize("key", ["extra_train", "unlabelled"])
def test_refused_rows_of_the_other_tables_count_by_themselves(key: str, run: Run) -> None:
    source = write_csv(Path("a.csv"), rows())
    more = write_csv(Path("more.csv"), [("where did my card go", "card_lost"), (" ", "card_lost")])
    message = run_etl(run, source, **{key: str(more)}).one_line_error()
    assert "1 of the 2 rows of more.csv" in message
    assert run_etl(run, source, bad_rows="drop", **{key: str(more)}).code == 0


def test_an_intent_whose_rows_are_all_refused_is_named(run: Run) -> None:
    source = write_csv(Path("a.csv"), [*rows(), ("x" * 6000, "complaint")])
    message = run_etl(run, source).one_line_error()
    assert '1 intent has no usable row: "complaint" (1)' in message
    assert "1 x text is longer than 5,000 characters" in message
    assert run_etl(run, source, bad_rows="drop").code == 2

    assert run_etl(run, source, rare="drop").code == 0
    assert label_names() == ("card_lost", "Exchange", "top_up")


def test_an_intent_with_some_usable_rows_is_no_error(run: Run) -> None:
    source = write_csv(Path("a.csv"), [*rows(), ("", "top_up")])
    assert run_etl(run, source).code == 0


def test_an_intent_that_stands_in_lists_of_several_alone_is_named(run: Run) -> None:
    pairs: list[tuple[str, Any]] = [*rows(), ("card and top up", ["top_up", "complaint"])]
    message = run_etl(run, write_jsonl(Path("a.jsonl"), pairs)).one_line_error()
    assert 'no usable row: "complaint" (1); 1 x label is a list of several intents' in message
    assert "one intent a sentence" in message


def test_a_list_of_one_label_is_that_label(run: Run) -> None:
    pairs = [(text, [label]) for text, label in rows()]
    assert run_etl(run, write_jsonl(Path("a.jsonl"), pairs)).code == 0
    assert label_names() == ("card_lost", "Exchange", "top_up")


def test_whole_numbers_with_a_missing_one_are_labels(run: Run) -> None:
    texts = [text for text, _ in rows()]
    labels = [float(number % 3) for number in range(len(texts) - 1)]
    table = pa.table({"text": texts, "label": pa.array([*labels, None], pa.float64())})
    pq.write_table(table, "a.parquet")

    result = run_etl(run, Path("a.parquet"))
    assert label_names() == ("0", "1", "2")
    assert "1 row was left out: 1 x no label" in flat(result.out)


def test_numbers_with_decimals_are_no_labels(run: Run) -> None:
    pairs = [(text, number / 2) for number, (text, _) in enumerate(rows())]
    message = run_etl(run, write_jsonl(Path("a.jsonl"), pairs)).one_line_error()
    assert "fewer than two intents with usable rows; left out: 60" in message
    assert "label is a number with decimals such as 0.5, not a name" in message


def test_a_number_is_whole_in_every_split_or_in_none() -> None:
    parts = {"train": [Row("train", 1, "a", 1.0)], "test": [Row("test", 1, "b", 2.5)]}
    cleaned, refusals = cleaning.clean_parts(parts, max_chars=100)
    assert cleaned == {"train": [], "test": []}
    assert [refusal.id for refusal in refusals] == ["train:1", "test:1"]

    parts["test"] = [Row("test", 1, "b", float("nan"))]
    cleaned, refusals = cleaning.clean_parts(parts, max_chars=100)
    assert [example.label_text for example in cleaned["train"]] == ["1"]
    assert refusals[0].reason.startswith("no label")


def test_true_and_false_are_two_intents(run: Run) -> None:
    pairs = [(text, label == "top_up") for text, label in rows()]
    assert run_etl(run, write_jsonl(Path("a.jsonl"), pairs)).code == 0
    assert label_names() == ("false", "true")


@pytest.mark.parametrize(
    ("text", "label", "reason"),
    [
        (1.5, "a", "text is a number, not a string"),
        (["x"], "a", "text is a list, not a string"),
        (True, "a", "text is true or false, not a string"),
        ("x", {"a": 1}, "label is an object, not a name"),
        ("x", ["a", "b"], cleaning.SEVERAL_INTENTS),
        ("x", [["a"]], cleaning.SEVERAL_INTENTS),
        ("x", [], "no label"),
        ("x", None, "no label"),
        (None, "a", "no text"),
        ("\u200b\ufeff", "a", "empty text"),
        ("x", "\u200b", "empty label"),
    ],
)
def test_what_a_cell_holds_is_named(text: Any, label: Any, reason: str) -> None:
    good = Row("a", 1, "y", "b")
    examples, [refusal] = cleaning.clean([good, Row("a", 2, text, label)], max_chars=100)
    assert [example.id for example in examples] == ["a:1"]
    assert (refusal.id, refusal.reason[: len(reason)]) == ("a:2", reason)


def test_a_whole_number_is_a_text_as_good_as_its_digits(run: Run) -> None:
    cells = [Row("a", 1, 4711, "x"), Row("a", 2, -7, "y"), Row("a", 3, "4711", "x")]
    examples, refusals = cleaning.clean(cells, max_chars=100)
    assert [example.text for example in examples] == ["4711", "-7", "4711"]
    assert not refusals

    pairs: list[tuple[Any, str]] = [*rows(), (4711, "top_up")]
    result = run_etl(run, write_jsonl(Path("a.jsonl"), pairs))
    assert result.code == 0, result.err
    assert read_report()["refused"]["count"] == 0


def test_one_intent_alone_is_refused_with_what_there_is(run: Run) -> None:
    pairs = [("a card", "x"), ("another card", "x"), ("", "y")]
    message = run_etl(run, write_csv(Path("a.csv"), pairs)).one_line_error()
    assert 'fewer than two intents with usable rows; all 2 are of "x"; left out: 1' in message
    assert "(1 x empty text, the first at a.csv" in message
    assert "label_column" in message


def test_messages_name_the_columns_and_lines_that_were_taken() -> None:
    reading = Reading("a.csv", "CSV", 2, "Mail", "Topic", ";", "cp1252")
    lines = [Row("a.csv", 1, "", "x", line=2), Row("a.csv", 2, "", "y", line=7)]
    sources = Sources(Source({"kind": "file"}, {"all": lines}, reading=[reading]))
    with pytest.raises(DataError) as caught:
        cleaning.clean_all(sources, DataConfig(dataset_name="a.csv"))
    assert 'a.csv (columns: text "Mail", label "Topic")' in str(caught.value)
    assert "the first at a.csv line 2, a.csv line 7" in str(caught.value)


def test_refused_rows_out_of_scope_are_listed() -> None:
    source = Source(
        {"kind": "clinc150"},
        {
            "train": [
                Row("train", number, text, label) for number, (text, label) in enumerate(rows())
            ]
        },
        out_of_scope={"test": [Row("oos_test", 1, " ", "oos"), Row("oos_test", 2, "tea", "oos")]},
    )
    cleaned = cleaning.clean_all(Sources(source), DataConfig(dataset_name="a"))
    assert [example.text for example in cleaned.out_of_scope["test"]] == ["tea"]
    assert [refusal.id for refusal in cleaned.refusals] == ["oos_test:1"]


def test_names_that_are_whole_numbers_are_ordered_as_numbers(run: Run) -> None:
    pairs = [(f"sentence {number} about {number % 12}", str(number % 12)) for number in range(120)]
    assert run_etl(run, write_csv(Path("a.csv"), pairs)).code == 0
    assert label_names() == tuple(map(str, range(12)))
    lines = (OUT / "report.md").read_text().splitlines()[-12:]
    assert [line.split(" | ")[0] for line in lines] == [f"| {number}" for number in range(12)]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["10", "9", "-1", "+2"], ["-1", "+2", "9", "10"]),
        (["7", "007", "06"], ["06", "007", "7"]),
        (["10", "9", "a"], ["10", "9", "a"]),
        (["1.5", "10", "9"], ["1.5", "10", "9"]),
        (["b", "A", "a"], ["A", "a", "b"]),
        (["9" * 5000, "1"], ["1", "9" * 5000]),
    ],
)
def test_labels_have_one_order(names: list[str], expected: list[str]) -> None:
    assert list(LabelSchema.from_names(names).names) == expected
    assert list(LabelSchema.from_names(reversed(names)).names) == expected


def test_names_that_differ_by_next_to_nothing_are_pointed_out(run: Run) -> None:
    names = ["top up", "top_up", "Top-Up", "top_up\u200b", "refund"]
    pairs = []
    for name in names:
        pairs += [(f"{name} of number {number}", name) for number in range(10)]

    result = run_etl(run, write_csv(Path("a.csv"), pairs))
    expected = '"Top-Up" (10), "top up" (10), "top_up" (10), "top_up\\u200b" (10)'
    assert f"hidden characters alone: {expected}" in flat(result.out)
    assert expected in (OUT / "report.md").read_text()
    [group] = read_report()["alike_labels"]
    assert group == dict.fromkeys(names[:4], 10)


def test_different_names_are_not_alike() -> None:
    assert label_notes.alike_names(Counter({"top_up": 3, "top_ups": 2, "C++": 1, "C#": 1})) == []


GERMAN = {
    "karte": [
        "Ich habe meine Karte verloren",
        "Meine Karte ist weg",
        "Bitte sperren Sie meine Karte",
        "Wo bleibt die neue Karte?",
        "Die Karte wurde gestohlen",
    ],
    "rechnung": [
        "Wo ist meine Rechnung?",
        "Die Rechnung ist falsch",
        "Ich brauche eine Kopie der Rechnung",
        "Rechnung nicht angekommen",
        "Warum ist die Rechnung so hoch?",
    ],
    "konto": [
        "Mein Konto ist gesperrt",
        "Ich kann mich nicht anmelden",
        "Passwort vergessen",
        "Wie schlie\u00dfe ich mein Konto?",
        "Bitte l\u00f6schen Sie meine Daten",
    ],
}


@pytest.fixture
def german() -> Path:
    pairs = []
    for label, texts in GERMAN.items():
        pairs += [(text, label) for text in texts]
        pairs += [(f"{text} Danke!", label) for text in texts]
    return write_csv(Path("german.csv"), pairs)


def test_another_language_is_named_with_an_encoder_that_reads_it(german: Path, run: Run) -> None:
    result = run_etl(run, german)
    assert "Language German" in flat(result.out)
    assert "read as German; the embedded encoder reads English" in flat(result.out)
    assert "--set model_name=intfloat/multilingual-e5-small" in flat(result.out)

    assert read_report()["languages"] == {"de": 1.0}
    assert dataset.load(OUT).manifest.languages == {"de": 1.0}
    assert "- Language: German" in (OUT / "report.md").read_text()


def test_training_an_english_encoder_repeats_the_note(
    german: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bankintent.training import publication

    monkeypatch.setattr(publication, "make_bundle", lambda *_: "a record")
    monkeypatch.setattr(publication, "summarise", lambda *_: None)
    assert run_etl(run, german).code == 0

    for model in ("bundled/all-MiniLM-L6-v2", language.MULTILINGUAL_ENCODER):
        config = train_config(Path("train.yaml"), Path(model), OUT, Path("bundle"))
        result = run(multiregime.main, "--config", config, "--regime", "lora")
        assert result.code == 0, result.err
        is_noted = "Note: The sentences read as German" in result.out
        assert is_noted == (model != language.MULTILINGUAL_ENCODER)


def test_english_sentences_are_english(run: Run) -> None:
    result = run_etl(run, write_csv(Path("a.csv"), rows()))
    assert "Language English" in flat(result.out)
    assert "multilingual" not in result.out


def test_the_bundled_sentences_are_english() -> None:
    import csv

    with (REPOSITORY / "data/bundled/sentences.csv").open(encoding="utf-8", newline="") as file:
        texts = [record["text"] for record in csv.DictReader(file)]
    assert language.detect(texts) == language.Languages({"en": 1.0})


GERMAN_SENTENCES = [text for texts in GERMAN.values() for text in texts]
SPANISH = [
    "He perdido mi tarjeta",
    "La factura es incorrecta",
    "\u00bfD\u00f3nde est\u00e1 mi pedido?",
    "El paquete ha llegado roto",
    "Quiero cambiar la direcci\u00f3n de entrega",
    "No me ha llegado la factura de marzo",
]
FRENCH = [
    "J'ai perdu ma carte",
    "La facture est fausse",
    "O\u00f9 est ma commande ?",
    "Le colis est arriv\u00e9 ab\u00eem\u00e9",
    "Je veux changer l'adresse de livraison",
    "Je n'ai pas re\u00e7u la facture de mars",
]
ENGLISH = [text for text, _ in rows()]
JARGON = [
    "atm",
    "card",
    "pin",
    "iban",
    "sepa",
    "kyc",
    "swift",
    "fx",
    "topup",
    "chargeback",
    "apple",
    "pay",
    "direct",
    "debit",
]


@pytest.mark.parametrize(
    ("texts", "code"),
    [
        (SPANISH, "es"),
        (FRENCH, "fr"),
        (GERMAN_SENTENCES + ENGLISH, "en"),
        (ENGLISH, "en"),
    ],
)
def test_the_first_language_is_that_of_most_sentences(texts: list[str], code: str) -> None:
    assert next(iter(language.detect(texts).shares)) == code


def test_a_part_in_another_language_is_noted_and_a_few_words_are_not() -> None:
    mixed = language.detect(GERMAN_SENTENCES + ENGLISH)
    assert mixed.is_foreign
    assert "English" in mixed.describe() and "German" in mixed.describe()
    assert not language.detect(JARGON).is_foreign
    assert not language.detect([*ENGLISH, "Wo ist meine Karte?"]).is_foreign


@pytest.mark.parametrize(
    "texts", [[], ["\U0001f44d"], ["12345", "67890"], [f"ORD-{n:05}" for n in range(50)]]
)
def test_what_is_no_language_raises_no_alarm(texts: list[str]) -> None:
    assert not language.detect(texts).is_foreign


def test_the_detector_is_loaded_by_etl_alone() -> None:
    program = "import sys, etl, bankintent.corpus.report\nprint('py3langid' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    assert done.stdout.strip() == "False"


def test_etl_says_what_it_took_in_lines_of_a_terminal(
    monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    from bankintent.corpus import sources

    read_all = sources.read_all
    readings = [
        Reading("train.csv", "CSV", 60, "Message text", "Topic", ";", "cp1252"),
        Reading("test.xlsx", "xlsx", 1200, "Message text", "Topic", sheet="Tabelle 1"),
    ]

    def read_and_tell(config: DataConfig) -> Sources:
        dataset = read_all(config).dataset
        unread = ["notes.csv"]
        return Sources(Source(dataset.identity, dataset.rows, reading=readings, unread=unread))

    monkeypatch.setattr(sources, "read_all", read_and_tell)
    result = run_etl(run, write_csv(Path("a.csv"), rows()))
    lines = [line.rstrip() for line in result.out.splitlines()]
    assert lines[:5] == [
        'Read      train.csv: 60 rows, CSV, cp1252, delimiter ";"',
        '          test.xlsx: 1,200 rows, xlsx, sheet "Tabelle 1"',
        'Columns   sentences in "Message text", intents in "Topic"',
        "Not read  notes.csv",
        "Language  English",
    ]
    assert read_report()["reading"][0]["delimiter"] == ";"
    assert "- Read: test.xlsx: 1,200 rows" in (OUT / "report.md").read_text()


def test_a_refused_row_says_where_it_is() -> None:
    assert RefusedRow("a:b.csv:3", "empty text").place == "a:b.csv:3"
    assert RefusedRow("a:b.csv:3", "empty text", line=9).place == "a:b.csv line 9"
