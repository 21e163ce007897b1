"""Exports of Lex, Wit.ai, Snips and the NLU Evaluation Corpora are read as they are."""

import contextlib
import copy
import itertools
import json
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from test_platforms import (
    CX,
    ES,
    WATSON,
    Tree,
    pairs,
    read,
    read_tree,
    write_json,
    write_tree,
    write_zip,
)

from bankintent.config import DataConfig
from bankintent.corpus.formats.files import ExportFile, ExportFiles
from bankintent.corpus.formats.registry import FORMATS
from bankintent.errors import DataError


def lex_intent(name: str, *utterances: str) -> Tree:
    said = [{"utterance": one} for one in utterances]
    return {"name": name, "sampleUtterances": said or None, "slotPriorities": []}


LOCALE = "Bank/BotLocales/en_US"

LEX: Tree = {
    "Manifest.json": {"metadata": {"schemaVersion": "1.0", "resourceType": "Bot"}},
    "Bank/Bot.json": {"name": "Bank"},
    f"{LOCALE}/BotLocale.json": {"identifier": "en_US"},
    f"{LOCALE}/Intents/Fly/Intent.json": lex_intent("Fly", "fly to {City}", "book a flight"),
    f"{LOCALE}/Intents/Fly/Slots/City/Slot.json": {"name": "City"},
    f"{LOCALE}/Intents/Hello/Intent.json": lex_intent("Hello", "good morning"),
    f"{LOCALE}/Intents/FallbackIntent/Intent.json": lex_intent("FallbackIntent"),
    f"{LOCALE}/SlotTypes/Cities/SlotType.json": {"name": "Cities"},
}
"""A small bot of Lex V2 in one locale."""


def test_a_lex_bot_gives_its_utterances_with_their_slots(tmp_path: Path) -> None:
    for path in (write_tree(tmp_path / "bot", LEX), write_zip(tmp_path / "bot.zip", LEX)):
        source = read(path)

        expected = [("fly to {City}", "Fly"), ("book a flight", "Fly"), ("good morning", "Hello")]
        assert pairs(source.rows["all"]) == expected
        assert source.left == {"slots": 1, "slot types": 1, "intents without sentences": 1}
        assert source.notes[0] == 'Intents without sentences are left: "FallbackIntent".'
        assert source.notes[1].startswith("Sentences with places of a template: 1.")


def test_a_locale_of_a_lex_bot_must_be_chosen_where_it_has_several(tmp_path: Path) -> None:
    spanish = "Bank/BotLocales/es_ES/Intents"
    more = {
        f"{spanish}/Hello/Intent.json": lex_intent("Hello", "buenos dias"),
        f"{spanish}/Fly/Intent.json": lex_intent("Fly", "volar"),
    }
    folder = write_tree(tmp_path / "bot", LEX | more)

    with pytest.raises(DataError, match=r"en_US \(3\), es_ES \(2\).*--set language=en"):
        read(folder)
    expected = [("volar", "Fly"), ("buenos dias", "Hello")]
    assert pairs(read(folder, language="es").rows["all"]) == expected
    assert read(folder, language="en-us").left["sentences in es_ES"] == 2


def test_two_locales_of_one_language_are_read_together(tmp_path: Path) -> None:
    british = "Bank/BotLocales/en_GB/Intents/Hello/Intent.json"
    folder = write_tree(tmp_path / "bot", LEX | {british: lex_intent("Hello", "good day")})

    source = read(folder)
    assert ("good day", "Hello") in pairs(source.rows["all"])
    assert len(source.rows["all"]) == 4
    assert source.notes[0].startswith("Sentences in en_GB, en_US are read as one language")
    assert pairs(read(folder, language="en_GB").rows["all"]) == [("good day", "Hello")]


def test_a_broken_intent_of_a_lex_bot_is_named_with_its_line(tmp_path: Path) -> None:
    name = f"{LOCALE}/Intents/Hello/Intent.json"
    with pytest.raises(DataError, match=rf"{name} line 1 is not JSON"):
        read_tree(tmp_path, LEX | {name: "{"})


def test_bots_and_intents_of_lex_v1_are_read(tmp_path: Path) -> None:
    fly = {"name": "Fly", "sampleUtterances": ["fly to {City}"], "slots": [{"name": "City"}]}
    hello = {"name": "Hello", "sampleUtterances": ["hi", "good morning"], "slots": []}
    bot = {"name": "Bank", "locale": "en-US", "intents": [fly, hello], "slotTypes": [{}]}

    source = read(write_json(tmp_path / "bot.json", {"metadata": {}, "resource": bot}))
    expected = [("fly to {City}", "Fly"), ("hi", "Hello"), ("good morning", "Hello")]
    assert pairs(source.rows["all"]) == expected
    assert source.left == {"slots": 1, "slot types": 1}

    source = read_tree(tmp_path, {"a.json": {"resource": fly}, "b.json": {"resource": hello}})
    assert pairs(source.rows["all"]) == expected


def wit_sentence(text: str, intent: str | None, *entities: str) -> Tree:
    marked = [{"entity": f"{one}:{one}", "body": one, "entities": []} for one in entities]
    sentence: Tree = {"text": text, "entities": marked, "traits": []}
    return sentence if intent is None else sentence | {"intent": intent}


def test_a_wit_app_gives_the_sentences_that_have_an_intent(tmp_path: Path) -> None:
    sentences = [
        wit_sentence("pay my bill", "pay", "bill"),
        wit_sentence("good morning", "hello"),
        wit_sentence("sing a song", None),
    ]
    tree = {
        "app.json": {"name": "bank", "lang": "en"},
        "entities/bill.json": {"name": "bill", "keywords": []},
        "intents/pay.json": {"name": "pay"},
        "utterances/utterances-1.json": {"utterances": sentences[:2]},
        "utterances/utterances-2.json": {"utterances": sentences[2:]},
    }
    for path in (write_tree(tmp_path / "app", tree), write_zip(tmp_path / "app.zip", tree)):
        source = read(path)

        assert pairs(source.rows["all"]) == [("pay my bill", "pay"), ("good morning", "hello")]
        assert source.left == {
            "entities (their words stay)": 1,
            "sentences without an intent": 1,
            "entity types": 1,
        }


def test_an_older_wit_app_has_its_intents_as_entities(tmp_path: Path) -> None:
    def sentence(text: str, **values: str) -> Tree:
        marked = [{"entity": name, "value": json.dumps(value)} for name, value in values.items()]
        return {"text": text, "entities": marked}

    data = [sentence("pay it", intent="pay ", item="it"), sentence("hi", intent="hello")]
    tree = {"bank/app.json": {}, "bank/expressions.json": {"data": [{"text": "la"}, *data]}}

    source = read_tree(tmp_path, tree)

    assert pairs(source.rows["all"]) == [("pay it", "pay"), ("hi", "hello")]
    assert [row.number for row in source.rows["all"]] == [2, 3]
    assert source.left == {"entities (their words stay)": 1, "sentences without an intent": 1}


def spoken(*words: str) -> Tree:
    """A sentence of Snips from its parts; every second one is an entity."""
    data: list[Tree] = []
    for number, word in enumerate(words):
        data.append({"text": word, "entity": "thing"} if number % 2 else {"text": word})
    return {"data": data}


def test_the_snips_benchmark_has_full_train_files_and_validate_files_as_test(
    tmp_path: Path,
) -> None:
    tree = {
        "Pay/train_Pay.json": {"Pay": [spoken("pay it")]},
        "Pay/train_Pay_full.json": {"Pay": [spoken("pay it"), spoken("pay the ", "bill")]},
        "Pay/validate_Pay.json": {"Pay": [spoken("pay me")]},
        "Hello/train_Hello_full.json": {"Hello": [spoken("hi")]},
        "Hello/validate_Hello.json": {"Hello": [spoken("hey")]},
        "Hello/Wit_metrics.json": {"f1": 0.9},
    }

    source = read_tree(tmp_path, tree)

    expected = [("hi", "Hello"), ("pay it", "Pay"), ("pay the bill", "Pay")]
    assert pairs(source.rows["train"]) == expected
    assert pairs(source.rows["test"]) == [("hey", "Hello"), ("pay me", "Pay")]
    assert source.left == {"entities (their words stay)": 1}
    assert source.notes == [
        "Files of the same sentences in a smaller size are left: Pay/train_Pay.json.",
        "The validate files are the test split.",
    ]


def test_train_files_of_the_snips_benchmark_alone_are_no_split(tmp_path: Path) -> None:
    tree = {"train_Pay.json": {"Pay": [spoken("pay")]}, "train_Hi.json": {"Hi": [spoken("hi")]}}

    source = read_tree(tmp_path, tree)

    assert pairs(source.rows["all"]) == [("hi", "Hi"), ("pay", "Pay")]


def test_a_file_of_the_snips_benchmark_in_another_encoding_is_named(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "snips", {"train_Pay.json": {"Pay": [spoken("pay")]}})
    latin = json.dumps({"Eat": [spoken("eat in a café")]}, ensure_ascii=False)
    (folder / "train_Eat.json").write_bytes(latin.encode("cp1252"))

    with pytest.raises(DataError, match=r"(?i)train_Eat.json line 1 is not utf-8.*cp1252"):
        read(folder)
    rows = read(folder, encoding="cp1252").rows["all"]
    assert ("eat in a café", "Eat") in pairs(rows)


def test_a_dataset_of_snips_nlu_is_read(tmp_path: Path) -> None:
    dataset = {
        "language": "en",
        "intents": {
            "pay": {"utterances": [spoken("pay the ", "bill"), spoken("pay now")]},
            "hello": {"utterances": [spoken("hi")]},
            "empty": {"utterances": []},
        },
        "entities": {"thing": {"data": []}},
    }

    source = read(write_json(tmp_path / "dataset.json", dataset))

    expected = [("pay the bill", "pay"), ("pay now", "pay"), ("hi", "hello")]
    assert pairs(source.rows["all"]) == expected
    assert source.left == {
        "entities (their words stay)": 1,
        "entity types": 1,
        "intents without sentences": 1,
    }


YAML = """\
# A comment
---
type: intent
name: pay
slots:
  - name: item
    entity: thing
utterances:
  - pay the [item:thing](bill) and the [item](rent)
  - yes
  - what is due in [month]
---
type: entity
name: thing
values:
  - bill
---
type: intent
name: hello
utterances:
  - "good morning"
"""


def test_intents_of_snips_nlu_in_yaml_are_read_without_their_marks(tmp_path: Path) -> None:
    path = tmp_path / "dataset.yaml"
    path.write_text(YAML, encoding="utf-8")

    source = read(path)

    expected = [("pay the bill and the rent", "pay"), ("yes", "pay")]
    expected += [("what is due in [month]", "pay"), ("good morning", "hello")]
    assert pairs(source.rows["all"]) == expected
    assert source.left == {"entities (their words stay)": 2, "entity types": 1}
    assert source.notes == ["Sentences that keep a slot without words, such as [month]: 1."]


def test_a_fault_in_snips_yaml_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "dataset.yaml"
    path.write_text(YAML.replace("values:", "values: ]"), encoding="utf-8")

    with pytest.raises(DataError, match=r"dataset.yaml line 15: .*indentation"):
        read(path)


def test_sentences_of_snips_yaml_have_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "dataset.yaml"
    path.write_text(YAML, encoding="utf-8")

    rows = read(path).rows["all"]
    assert [row.line for row in rows] == [9, 10, 11, 21]
    assert [row.number for row in rows] == [1, 2, 3, 4]


def evaluated(text: str, intent: str, training: Any) -> Tree:
    return {"text": text, "intent": intent, "entities": [], "training": training}


def test_an_evaluation_corpus_keeps_its_train_and_test_sentences(tmp_path: Path) -> None:
    sentences = [
        evaluated("pay now", "pay", True),
        evaluated("good morning", "hello", False),
        evaluated("pay it", "pay", False),
    ]
    path = write_json(tmp_path / "corpus.json", {"name": "bank", "sentences": sentences})

    source = read(path)

    assert pairs(source.rows["train"]) == [("pay now", "pay")]
    assert pairs(source.rows["test"]) == [("good morning", "hello"), ("pay it", "pay")]
    assert [row.number for row in source.rows["test"]] == [2, 3]
    assert source.notes == ['Sentences with "training": true are train, the others test.']


def test_an_evaluation_corpus_without_test_sentences_has_no_split(tmp_path: Path) -> None:
    sentences = [evaluated("pay now", "pay", True), evaluated("hi", "hello", True)]
    path = write_json(tmp_path / "corpus.json", {"sentences": sentences})

    assert list(read(path).rows) == ["all"]


def test_a_sentence_of_neither_split_is_named(tmp_path: Path) -> None:
    sentences = [evaluated("pay now", "pay", True), evaluated("hi", "hello", "maybe")]
    path = write_json(tmp_path / "corpus.json", {"sentences": sentences})

    with pytest.raises(DataError, match=r"sentence 2 has .*maybe"):
        read(path)


FAULTS: tuple[Any, ...] = (
    None,
    1,
    True,
    "words",
    [],
    {},
    [1],
    ["words"],
    [{}],
    [None],
    {"a": []},
    [{"text": 1}],
)
"""Values that stand where others belong."""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to every value within a value."""
    yield path
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    for key, one in inner:
        yield from places(one, (*path, key))


def put(value: Any, path: tuple[Any, ...], fault: Any) -> Any:
    """A copy of a value with a fault at one place."""
    if not path:
        return fault
    changed = copy.copy(value)
    changed[path[0]] = put(value[path[0]], path[1:], fault)
    return changed


def open_tree(tree: Tree) -> ExportFiles:
    """The files of an export, in memory."""
    files = []
    for name, content in sorted(tree.items()):
        encoded = json.dumps(content).encode()
        files.append(ExportFile(name, partial(bytes, encoded)))
    return ExportFiles(Path("export"), tuple(files))


EXPORTS: dict[str, Tree] = {
    "Dialogflow ES": ES,
    "Dialogflow CX": CX,
    "Watson Assistant": {"skill.json": WATSON},
    "Amazon Lex V2": LEX,
    "Wit.ai": {"utterances.json": {"utterances": [wit_sentence("pay", "pay", "bill")]}},
    "Snips benchmark": {"train_Pay.json": {"Pay": [spoken("pay the ", "bill")]}},
    "Alexa interaction model": {
        "en-US.json": {
            "languageModel": {
                "intents": [{"name": "Pay", "samples": ["pay {Sum}"], "slots": [{"name": "Sum"}]}],
                "types": [{"name": "Sums"}],
            }
        }
    },
    "LUIS app": {
        "luis.json": {
            "luis_schema_version": "7.0.0",
            "culture": "en-us",
            "intents": [{"name": "Pay"}],
            "closedLists": [{"name": "banks"}],
            "utterances": [{"text": "pay", "intent": "Pay", "entities": [{"entity": "sum"}]}],
        }
    },
    "CLU project": {
        "clu.json": {
            "metadata": {"projectKind": "Conversation", "language": "en"},
            "assets": {
                "projectKind": "Conversation",
                "intents": [{"category": "Pay"}],
                "entities": [{"category": "sum"}],
                "utterances": [
                    {"text": "pay", "intent": "Pay", "dataset": "Train", "entities": []}
                ],
            },
        }
    },
    "NLU Evaluation Corpora": {"a.json": {"sentences": [evaluated("pay", "pay", True)]}},
}


@pytest.mark.parametrize("name", EXPORTS)
def test_values_of_another_shape_are_refused_in_words_or_left(name: str) -> None:
    tree = EXPORTS[name]
    [format] = [one for one in FORMATS if one.name == name]
    assert format.find(open_tree(tree))

    for file, content in tree.items():
        for path, fault in itertools.product(places(content), FAULTS):
            files = open_tree(tree | {file: put(content, path, fault)})
            taken = format.find(files)
            if taken:
                with contextlib.suppress(DataError):
                    format.read(files, taken, DataConfig(dataset_name="export"))
