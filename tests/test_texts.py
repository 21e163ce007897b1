"""Texts: one answer for a text however it was typed, and which texts count as the same one."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from serving_fixtures import write_tiny_model
from tiny_models import byte_level_tokenizer

from bankintent.config import DataConfig, ScoreConfig, ServeConfig
from bankintent.corpus import cleaning
from bankintent.corpus.dataset import SplitData
from bankintent.corpus.rows import Row
from bankintent.inference import engines, exported_inputs
from bankintent.inference.choice import find
from bankintent.inference.exported_inputs import FormatSettings
from bankintent.inference.exported_runtime import KINDS, ExportedModel
from bankintent.inference.predictor import Predictor
from bankintent.scoring import score as scoring
from bankintent.serving.metrics import Metrics
from bankintent.serving.service import Service
from bankintent.texts import fold, is_blank, normalise
from bankintent.training.encoding import encode

MESSY = [
    "\ufeffHello,\r\n\r\n\r\nmy card\tis  lost. ",
    "cafe\u0301 au\u00a0lait",
    "  PIN?\n",
    "\n\nthe\u2003rate \u0928\u093c",
]
"""Blank lines, tabs, other blanks, letters in two parts, byte order marks."""

FOLDED = ["Hello, my card is lost.", "caf\u00e9 au lait", "PIN?", "the rate \u0929"]


@pytest.fixture(scope="module")
def byte_level_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier for whose tokenizer every blank line counts."""
    folder = tmp_path_factory.mktemp("byte-level") / "model"
    return write_tiny_model(folder, byte_level_tokenizer(model_max_length=32))


def test_folding_composes_letters_and_leaves_single_blanks() -> None:
    assert list(map(fold, MESSY)) == FOLDED
    assert list(map(fold, FOLDED)) == FOLDED


def test_without_folding_the_model_would_see_other_texts(byte_level_model: Path) -> None:
    tokenizer = Predictor.load(byte_level_model).tokenizer
    for messy, folded in zip(MESSY, FOLDED, strict=True):
        assert tokenizer(messy)["input_ids"] != tokenizer(folded)["input_ids"]


def test_a_text_has_the_same_logits_wherever_it_is_read(byte_level_model: Path) -> None:
    rows = [Row("a.csv", number, text, "card") for number, text in enumerate(MESSY)]
    examples, refusals = cleaning.clean(rows, DataConfig(dataset_name="a").max_chars)
    assert not refusals
    predictor = Predictor.load(byte_level_model)
    evaluated = predictor.logits([example.text for example in examples])

    np.testing.assert_array_equal(predictor.logits(MESSY), evaluated)
    runtime = find(byte_level_model, threads=1).load()
    for number, item in enumerate(runtime.tokenize(MESSY)):
        np.testing.assert_allclose(runtime.logits([item])[0], evaluated[number], atol=1e-5)

    served = asyncio.run(serve(byte_level_model, MESSY))
    np.testing.assert_allclose(served, evaluated, atol=1e-5)


async def serve(model: Path, texts: list[str]) -> np.ndarray[Any, Any]:
    service = Service(ServeConfig(), Metrics())
    await service.start(find(model, threads=1).load)
    answers = await service.classify(texts)
    await service.close()
    return np.array([answer.logits for answer in answers])


def test_score_gives_a_text_the_answer_of_its_folded_form(byte_level_model: Path) -> None:
    answers = []
    for name, texts in (("messy", MESSY), ("folded", FOLDED)):
        source = Path(f"{name}.parquet")
        pq.write_table(pa.table({"text": texts}), source)
        output = Path(f"{name}.scored.parquet")
        scoring.score(ScoreConfig(input=source, output=output, model_dir=byte_level_model))
        answers.append(pq.read_table(output).select(["label", "score"]).to_pylist())

    assert answers[0] == answers[1]
    assert len(answers[0]) == len(MESSY)


def test_training_reads_folded_texts() -> None:
    tokenizer = byte_level_tokenizer(model_max_length=32)
    labels = [0] * len(MESSY)
    ids = list(map(str, labels))
    messy = encode(SplitData(ids, MESSY, labels), tokenizer)
    assert messy == encode(SplitData(ids, FOLDED, labels), tokenizer)


def test_an_exported_format_reads_folded_texts_and_its_probes_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "start_onnxruntime", lambda *_: None)
    byte_level_tokenizer().backend_tokenizer.save(str(tmp_path / exported_inputs.TOKENIZER))
    inputs = ["input_ids", "attention_mask"]
    padding = dict.fromkeys(inputs, 0)
    FormatSettings(inputs, padding, "right", 512, 1, "tiny", {}).save(tmp_path)
    model = ExportedModel(tmp_path, KINDS["onnx"], threads=1)

    assert model.tokenize(MESSY) == model.encode(FOLDED) != model.encode(MESSY)
    assert len(exported_inputs.PROBES[-1]) == len("a long text ") * 30
    [probe] = model.encode([exported_inputs.PROBES[-1]])
    assert len(probe) == len(exported_inputs.PROBES[-1]) + 2


def test_what_a_limit_cuts_is_the_folded_text(byte_level_model: Path) -> None:
    runtime = find(byte_level_model, threads=1).load()
    blanks, words = runtime.tokenize(["a" + " " * 100 + "b", "a b " * 20])
    assert (len(blanks), blanks.truncated) == (5, False)
    assert (len(words), words.truncated) == (32, True)


SAME = [
    ("Where is, my CARD?", "where is my card"),
    ("top-up", "Top up"),
    ("top_up", "top up"),
    ("can\u2019t pay", "can't  pay!"),
    ("\u201chi\u201d there\u2026", "hi there"),
    ("card (lost)", "card lost."),
    ("5%", "5 %"),
    ("$5", "$ 5"),
    ("pass\u200bword", "password"),
    ("call me \u260e\ufe0f", "call me \u260e"),
    ("\uff21\uff22\uff23\u3000card", "abc card"),
    ("cafe\u0301", "caf\u00e9"),
    ("STRASSE", "stra\u00dfe"),
    ("\u2212" + "5 euros", "-5 euros"),
    ("a \u2013 b", "a b"),
    ("2) card", "2 card"),
    ("\u0915\u093e\u0930\u094d\u0921\u0964", "\u0915\u093e\u0930\u094d\u0921"),
]

DIFFERENT = [
    ("\U0001f44d", "\U0001f44e"),
    ("fine \U0001f44d", "fine \U0001f44e"),
    ("fine", "fine \U0001f44e"),
    ("$5", "\u20ac5"),
    ("C++", "C#"),
    ("C++", "C"),
    ("C#", "C"),
    ("-1", "+1"),
    ("-1", "1"),
    ("+1", "1"),
    ("-$5", "$5"),
    ("???", "..."),
    ("???", "?"),
    ("!", "?"),
    ("\u0915\u093f", "\u0915\u0940"),
    ("\u0939\u093f\u0928\u094d\u0926\u0940", "\u0939\u093f\u0928\u094d\u0926\u0941"),
    ("caf\u00e9", "cafe"),
    ("10\u00b2", "102"),
    ("\u00bd", "1/2"),
    ("1.5", "15"),
    ("1.5", "1 5"),
    ("10:30", "10 30"),
    ("50%", "50"),
    ("R&D", "R D"),
    ("me@x", "me x"),
    ("1/2", "1 2"),
    ("\U0001f1e9\U0001f1ea", "\U0001f1eb\U0001f1f7"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_texts_that_say_the_same_are_the_same(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_a_sign_a_vowel_or_a_number_makes_another_text(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)


def test_the_normalised_form_of_a_normalised_form_is_itself() -> None:
    for pair in SAME + DIFFERENT:
        for text in pair:
            assert normalise(normalise(text)) == normalise(text)


@pytest.mark.parametrize("text", ["", " \t\n", "\ufeff", "\u200b\u200d", "\u3164 \ufe0f"])
def test_a_text_that_shows_nothing_is_blank(text: str) -> None:
    assert is_blank(text)
    assert not is_blank(f"{text}?")
