"""Apps of LUIS, its .lu files, and projects of CLU."""

import json
from pathlib import Path
from typing import Any

import pytest

from bankintent.config import DataConfig
from bankintent.corpus import sources
from bankintent.corpus.rows import Row, Source
from bankintent.errors import DataError


def read(name: str = "app.json", **more: Any) -> Source:
    return sources.read(DataConfig(dataset_name=f"./{name}", **more))


def write_json(content: Any, name: str = "app.json") -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(json.dumps(content), encoding="utf-8")


def pairs(rows: list[Row]) -> list[tuple[Any, Any]]:
    return [(row.label, row.text) for row in rows]


def luis_app(culture: str = "en-us", **more: Any) -> dict[str, Any]:
    marked = {"entity": "sum", "startPos": 4, "endPos": 6}
    return {
        "luis_schema_version": "7.0.0",
        "culture": culture,
        "name": "bank",
        "intents": [{"name": "None"}, {"name": "Pay"}, {"name": "Limit"}],
        "entities": [{"name": "sum", "roles": []}],
        "prebuiltEntities": [{"name": "number", "roles": []}],
        "closedLists": [{"name": "banks", "subLists": []}],
        "phraselists": [{"name": "pay", "words": "pay,send"}],
        "patterns": [{"pattern": "pay {sum}", "intent": "Pay"}],
        "regex_entities": [],
        "utterances": [
            {"text": "pay 100", "intent": "Pay", "entities": [marked]},
            {"text": "raise my limit", "intent": "Limit", "entities": []},
            {"text": "what a day", "intent": "None", "entities": []},
        ],
        **more,
    }


def test_a_luis_app_is_read_and_its_other_parts_are_counted() -> None:
    write_json(luis_app())
    source = read()

    assert pairs(source.rows["all"]) == [("Pay", "pay 100"), ("Limit", "raise my limit")]
    assert [row.number for row in source.rows["all"]] == [1, 2]
    assert source.left == {
        "entity types": 2,
        "lists": 1,
        "patterns": 1,
        "phrase lists": 1,
        "entities (their words stay)": 1,
    }


def test_the_intent_none_of_luis_is_out_of_scope() -> None:
    write_json(luis_app())
    source = read()
    assert pairs(source.out_of_scope["all"]) == [("None", "what a day")]
    [note] = source.notes
    assert note == 'Sentences of the intent "None", kept as out of scope: 1.'


def test_an_old_luis_app_is_read() -> None:
    old = {
        "luis_schema_version": "1.3.0",
        "name": "bank",
        "patterns": [],
        "intents": [{"name": "Pay"}],
        "entities": [],
        "bing_entities": ["number"],
        "model_features": [{"name": "pay", "words": "pay"}],
        "utterances": [{"text": "pay 1", "intent": "Pay", "entities": []}],
    }
    write_json(old)
    source = read()
    assert pairs(source.rows["all"]) == [("Pay", "pay 1")]
    assert source.left == {"entity types": 1, "phrase lists": 1}
    assert source.out_of_scope == {}
    assert source.notes == []


def test_an_utterance_that_is_no_object_is_named() -> None:
    write_json(luis_app(utterances=[{"text": "a", "intent": "Pay"}, "b"]))
    with pytest.raises(DataError, match=r"app\.json: utterance 2 is no object"):
        read()


def test_luis_apps_in_two_languages_need_a_choice() -> None:
    write_json(luis_app("en-us"), "apps/en.json")
    write_json(luis_app("de-de"), "apps/de.json")
    with pytest.raises(DataError, match=r"2 languages: de-de \(3\), en-us \(3\).*language=de"):
        read("apps")

    source = read("apps", language="de")
    assert {row.origin for row in source.pooled()} == {"de.json"}
    assert source.left["sentences in en-us"] == 3


LU = """> a comment - with a dash
> !# @app.culture = en-us

# Pay
- pay {sum=100}
- pay {@recipient={@name=Ann} Lee} {@sum = 100}
- pay {sum}
- [more](./more.lu#Pay)

## Limit
* raise my limit

@ list bank =
    - first :
        - the first
$city:Rome=
- rome

# ? do you answer
```
# not an intent
- not a sentence
```

# None
- what a day
"""


def test_a_lu_file_is_read_without_its_marks() -> None:
    Path("app.lu").write_bytes(b"\xef\xbb\xbf" + LU.replace("\n", "\r\n").encode())
    source = read("app.lu")

    found = [(row.label, " ".join(row.text.split()), row.line) for row in source.rows["all"]]
    expected = [
        ("Pay", "pay 100", 5),
        ("Pay", "pay Ann Lee 100", 6),
        ("Limit", "raise my limit", 11),
    ]
    assert found == expected
    assert pairs(source.out_of_scope["all"]) == [("None", "what a day")]
    assert source.left == {
        "entity types": 2,
        "entities (their words stay)": 4,
        "patterns": 1,
        "references": 1,
        "questions with answers": 1,
    }


@pytest.mark.parametrize("name", ["bot.{}.lu", "{}/bot.lu"])
def test_lu_files_in_two_languages_need_a_choice(name: str) -> None:
    for locale in ("en-us", "fr-fr"):
        path = Path("apps") / name.format(locale)
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("# Pay\n- pay\n# Limit\n- limit\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"en-us \(2\), fr-fr \(2\)"):
        read("apps")
    assert len(read("apps", language="fr-fr").rows["all"]) == 2


def utterance(text: str, intent: str, **more: Any) -> dict[str, Any]:
    return {"text": text, "intent": intent, "entities": [], **more}


def clu_project(utterances: list[Any], kind: str = "Conversation") -> dict[str, Any]:
    return {
        "projectFileVersion": "2022-05-01",
        "metadata": {"projectKind": kind, "language": "en-us"},
        "assets": {
            "projectKind": kind,
            "intents": [{"category": "Pay"}, {"category": "Limit"}],
            "entities": [{"category": "sum"}],
            "utterances": utterances,
        },
    }


def test_a_clu_project_keeps_train_and_test() -> None:
    entity = {"category": "sum", "offset": 4, "length": 3}
    write_json(
        clu_project(
            [
                utterance("pay 100", "Pay", dataset="Train", entities=[entity]),
                utterance("pay", "Pay", dataset="Test"),
                utterance("limit", "Limit"),
                utterance("what a day", "None", dataset="Test"),
            ]
        )
    )
    source = read()
    assert pairs(source.rows["train"]) == [("Pay", "pay 100"), ("Limit", "limit")]
    assert pairs(source.rows["test"]) == [("Pay", "pay")]
    assert pairs(source.out_of_scope["test"]) == [("None", "what a day")]
    assert source.left == {"entity types": 1, "entities (their words stay)": 1}
    assert len(source.notes) == 1


@pytest.mark.parametrize("kind", ["Conversation", "CustomConversation", "conversation"])
def test_a_clu_project_of_one_split_has_none(kind: str) -> None:
    write_json(clu_project([utterance("pay", "Pay", dataset="Train")], kind))
    assert read().rows.keys() == {"all"}


def test_a_clu_project_in_several_languages_needs_a_choice() -> None:
    both = [utterance("pay", "Pay"), utterance("zahlen", "Pay", language="de")]
    write_json(clu_project(both))
    with pytest.raises(DataError, match=r"2 languages: de \(1\), en-us \(1\).*--set language=de"):
        read()
    with pytest.raises(
        DataError, match=r"no sentences in fr; its languages are de \(1\), en-us \(1\)"
    ):
        read(language="fr")

    source = read(language="en")
    assert pairs(source.rows["all"]) == [("Pay", "pay")]
    assert source.left["sentences in de"] == 1


def test_forms_of_one_language_need_no_choice() -> None:
    both = [utterance("pay", "Pay"), utterance("pay up", "Pay", language="en-GB")]
    write_json(clu_project(both))
    assert len(read().rows["all"]) == 2
    assert pairs(read(language="en-gb").rows["all"]) == [("Pay", "pay up")]


@pytest.mark.parametrize("kind", ["Orchestration", "Workflow"])
def test_an_orchestration_project_is_refused(kind: str) -> None:
    write_json(clu_project([utterance("pay", "Pay")], kind))
    with pytest.raises(DataError, match=r"app\.json is an orchestration project"):
        read()


def test_an_utterance_of_clu_that_is_no_object_is_named() -> None:
    write_json(clu_project([utterance("pay", "Pay"), None]))
    with pytest.raises(DataError, match=r"app\.json: utterance 2 is no object"):
        read()
