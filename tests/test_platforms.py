"""Exports of Dialogflow ES and CX and of Watson Assistant are read as they are."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bankintent.config import DataConfig
from bankintent.corpus import sources
from bankintent.corpus.formats.files import open_files
from bankintent.corpus.formats.registry import TOOLS
from bankintent.corpus.rows import Row, Source
from bankintent.errors import DataError

Tree = dict[str, Any]
"""Files by name: text as it is, everything else as JSON."""


def write_tree(folder: Path, tree: Tree) -> Path:
    """The files of an export in a folder."""
    for name, content in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content, indent=2)
        path.write_text(text, encoding="utf-8")
    return folder


def write_zip(path: Path, tree: Tree) -> Path:
    """The files of an export in a zip."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in tree.items():
            archive.writestr(name, json.dumps(content))
    return path


def read(path: Path, **more: Any) -> Source:
    return sources.read(DataConfig(dataset_name=str(path), **more))


def read_tree(folder: Path, tree: Tree, **more: Any) -> Source:
    return read(write_tree(folder / "export", tree), **more)


def pairs(rows: list[Row]) -> list[tuple[Any, Any]]:
    """(text, intent) of rows."""
    return [(row.text, row.label) for row in rows]


def say(*words: str, **more: Any) -> Tree:
    """A sentence of Dialogflow ES from its parts; every second one is an entity."""
    data: list[Tree] = []
    for number, word in enumerate(words):
        part: Tree = {"text": word, "userDefined": False}
        if number % 2:
            part |= {"meta": "@thing", "alias": "thing"}
        data.append(part)
    return {"id": "1", "data": data, "isTemplate": False, "count": 0, **more}


def es_intent(name: str, **more: Any) -> Tree:
    messages = [{"type": 0, "lang": "en", "speech": ["fine"]}]
    return {"name": name, "responses": [{"messages": messages}], "events": [], **more}


ES: Tree = {
    "agent.json": {"language": "en", "supportedLanguages": ["de"]},
    "package.json": {"version": "1.0.0"},
    "entities/thing.json": {"name": "thing"},
    "entities/thing_entries_en.json": [{"value": "card", "synonyms": ["card"]}],
    "intents/block_card.json": es_intent("block card"),
    "intents/block_card_usersays_en.json": [say("block my ", "card", " now"), say("block it")],
    "intents/hello.json": es_intent("hello", events=[{"name": "WELCOME"}]),
    "intents/hello_usersays_en.json": [say("good morning")],
    "intents/Default Fallback Intent.json": es_intent(
        "Default Fallback Intent", fallbackIntent=True
    ),
}
"""A small agent of Dialogflow ES in one language."""


def test_an_es_agent_gives_the_joined_parts_under_the_name_of_their_intent(tmp_path: Path) -> None:
    for path in (write_tree(tmp_path / "agent", ES), write_zip(tmp_path / "agent.zip", ES)):
        source = read(path)

        assert pairs(source.rows["all"]) == [
            ("block my card now", "block card"),
            ("block it", "block card"),
            ("good morning", "hello"),
        ]
        assert source.rows["all"][1].origin == "intents/block_card_usersays_en.json"
        assert [row.number for row in source.rows["all"]] == [1, 2, 1]
        assert source.identity["format"] == "Dialogflow ES"


def test_what_an_es_agent_holds_besides_sentences_is_counted(tmp_path: Path) -> None:
    source = read_tree(tmp_path, ES)

    assert source.left == {
        "entities (their words stay)": 1,
        "entity types": 1,
        "responses": 3,
        "events": 1,
        "intents without sentences": 1,
    }
    assert source.notes == ['Intents without sentences are left: "Default Fallback Intent".']


def test_an_es_agent_without_intent_files_names_intents_by_its_file_names(tmp_path: Path) -> None:
    tree = {
        "ask a price_usersays_en.json": [say("how much")],
        "bye_usersays_en.json": [say("see you")],
    }

    source = read_tree(tmp_path, tree)

    assert pairs(source.rows["all"]) == [("how much", "ask a price"), ("see you", "bye")]


def test_a_language_of_an_es_agent_must_be_chosen_where_it_has_several(tmp_path: Path) -> None:
    german = {
        "intents/hello_usersays_de.json": [say("guten Tag")],
        "intents/block_card_usersays_de.json": [say("sperren")],
    }
    folder = write_tree(tmp_path / "agent", ES | german)

    with pytest.raises(DataError, match=r"en \(3\), de \(2\).*--set language=en"):
        read(folder)
    source = read(folder, language="de")
    assert pairs(source.rows["all"]) == [("sperren", "block card"), ("guten Tag", "hello")]
    assert source.left["sentences in en"] == 3
    with pytest.raises(DataError, match="no sentences in fr"):
        read(folder, language="fr")


def test_sentences_of_an_es_fallback_intent_are_out_of_scope(tmp_path: Path) -> None:
    negative = {"intents/Default Fallback Intent_usersays_en.json": [say("tell me a joke")]}

    source = read_tree(tmp_path, ES | negative)

    assert pairs(source.out_of_scope["all"]) == [("tell me a joke", "Default Fallback Intent")]
    assert len(source.rows["all"]) == 3
    assert source.notes == ["Negative examples of fallback intents, kept as out of scope: 1."]


def test_templates_of_an_es_agent_are_taken_and_said(tmp_path: Path) -> None:
    template = say("remind me on @sys.date:date", isTemplate=True)
    tree = ES | {"intents/hello_usersays_en.json": [template]}

    source = read_tree(tmp_path, tree)

    assert ("remind me on @sys.date:date", "hello") in pairs(source.rows["all"])
    assert source.notes[0].startswith("Sentences that are templates: 1.")


def test_an_older_es_agent_has_its_sentences_in_the_intents(tmp_path: Path) -> None:
    tree = {
        "agent.json": {"language": "en"},
        "intents/pay.json": es_intent("pay", userSays=[say("pay the ", "bill")]),
        "intents/hello.json": es_intent("hello", userSays=[say("hi"), say("hey")]),
        "intents/empty.json": es_intent("empty", userSays=[]),
    }

    source = read_tree(tmp_path, tree)

    assert pairs(source.rows["all"]) == [("hi", "hello"), ("hey", "hello"), ("pay the bill", "pay")]
    assert source.left["intents without sentences"] == 1


@pytest.mark.parametrize("name", ["intents/hello_usersays_en.json", "intents/hello.json"])
def test_a_broken_file_of_an_es_agent_is_named_with_its_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"{name} line 2 is not JSON"):
        read_tree(tmp_path, ES | {name: '[\n{"data": [,]}]'})


def test_an_es_sentence_of_another_shape_is_named(tmp_path: Path) -> None:
    for data in ("words", ["words"], [{"text": 3}]):
        tree = ES | {"intents/hello_usersays_en.json": [say("hi"), {"data": data}]}
        with pytest.raises(DataError, match=r"hello_usersays_en.json, sentence 2"):
            read_tree(tmp_path, tree)


def phrase(*words: str) -> Tree:
    """A sentence of Dialogflow CX from its parts; every second one is a parameter."""
    data: list[Tree] = []
    for number, word in enumerate(words):
        part: Tree = {"text": word, "auto": True}
        if number % 2:
            part["parameterId"] = "thing"
        data.append(part)
    return {"parts": data, "repeatCount": 1}


def phrases(*sentences: Tree) -> Tree:
    return {"trainingPhrases": list(sentences)}


CX: Tree = {
    "agent.json": {"displayName": "bank", "defaultLanguageCode": "en"},
    "entityTypes/thing/thing.json": {"displayName": "thing"},
    "entityTypes/thing/entities/en.json": {"entities": []},
    "flows/Main/Main.json": {"displayName": "Main"},
    "flows/Main/pages/Start.json": {"displayName": "Start"},
    "webhooks/pay.json": {"displayName": "pay"},
    "intents/pay%3anow/pay%3anow.json": {"displayName": "pay:now", "numTrainingPhrases": 2},
    "intents/pay%3anow/trainingPhrases/en.json": phrases(
        phrase("pay the ", "bill"), phrase("pay now")
    ),
    "intents/hello/hello.json": {"displayName": "hello"},
    "intents/hello/trainingPhrases/en.json": phrases(phrase("good morning")),
    "intents/silent/silent.json": {"displayName": "silent"},
    "intents/Default Negative Intent/Default Negative Intent.json": {
        "displayName": "Default Negative Intent",
        "isFallback": True,
    },
    "intents/Default Negative Intent/trainingPhrases/en.json": phrases(phrase("sing a song")),
}
"""A small agent of Dialogflow CX in one language."""


def test_a_cx_agent_gives_its_training_phrases(tmp_path: Path) -> None:
    for path in (write_tree(tmp_path / "agent", CX), write_zip(tmp_path / "agent.zip", CX)):
        source = read(path)

        expected = [("good morning", "hello"), ("pay the bill", "pay:now"), ("pay now", "pay:now")]
        assert pairs(source.rows["all"]) == expected
        assert source.out_of_scope["all"][0].text == "sing a song"
        assert source.left == {
            "entities (their words stay)": 1,
            "entity types": 1,
            "flows": 1,
            "pages": 1,
            "webhooks": 1,
            "intents without sentences": 1,
        }
        assert source.notes == [
            'Sentences of "Default Negative Intent", kept as out of scope: 1.',
            'Intents without sentences are left: "silent".',
        ]


def test_a_language_of_a_cx_agent_must_be_chosen_where_it_has_several(tmp_path: Path) -> None:
    more = {
        "intents/hello/trainingPhrases/pt-br.json": phrases(phrase("bom dia")),
        "intents/pay%3anow/trainingPhrases/pt-br.json": phrases(phrase("pagar")),
    }
    folder = write_tree(tmp_path / "agent", CX | more)

    with pytest.raises(DataError, match=r"en \(4\), pt-br \(2\)"):
        read(folder)
    for name in ("pt-br", "pt", "PT_BR"):
        expected = [("bom dia", "hello"), ("pagar", "pay:now")]
        assert pairs(read(folder, language=name).rows["all"]) == expected


def test_intents_of_cx_in_one_file_are_numbered_through(tmp_path: Path) -> None:
    intents = [
        {"displayName": "pay", **phrases(phrase("pay the ", "bill"), phrase("pay now"))},
        {"displayName": "hello", **phrases(phrase("good morning"))},
    ]
    for number, content in enumerate((intents, {"intents": intents})):
        path = tmp_path / f"intents{number}.json"
        path.write_text(json.dumps(content), encoding="utf-8")

        rows = read(path).rows["all"]

        expected = [("pay the bill", "pay"), ("pay now", "pay"), ("good morning", "hello")]
        assert pairs(rows) == expected
        assert [row.number for row in rows] == [1, 2, 3]


def test_a_broken_file_of_a_cx_agent_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"trainingPhrases/en.json line 2 is not JSON"):
        read_tree(tmp_path, CX | {"intents/hello/trainingPhrases/en.json": '{\n"a" 1}'})


WATSON: Tree = {
    "name": "bank",
    "language": "en",
    "intents": [
        {
            "intent": "pay",
            "description": "",
            "examples": [
                {"text": "pay my bill", "mentions": [{"entity": "thing", "location": [7, 11]}]},
                {"text": "pay now"},
            ],
        },
        {"intent": "hello", "examples": [{"text": "good morning"}]},
        {"intent": "empty", "examples": []},
    ],
    "entities": [{"entity": "thing", "values": []}],
    "counterexamples": [{"text": "sing a song"}],
    "dialog_nodes": [{"dialog_node": "a"}, {"dialog_node": "b"}],
}
"""A small skill of Watson Assistant."""


def write_json(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return path


def test_a_watson_skill_gives_its_examples_and_counterexamples(tmp_path: Path) -> None:
    wrapped = {"name": "bank", "type": "dialog", "workspace": WATSON}
    assistant = {"assistant_skills": [{"type": "dialog", "workspace": WATSON}]}
    for number, content in enumerate((WATSON, wrapped, assistant)):
        source = read(write_json(tmp_path / f"skill{number}.json", content))

        expected = [("pay my bill", "pay"), ("pay now", "pay"), ("good morning", "hello")]
        assert pairs(source.rows["all"]) == expected
        assert [row.number for row in source.rows["all"]] == [1, 2, 3]
        assert [row.text for row in source.out_of_scope["all"]] == ["sing a song"]
        assert source.out_of_scope["all"][0].number == 4
        assert source.left == {
            "entities (their words stay)": 1,
            "entity types": 1,
            "dialog nodes": 2,
            "intents without sentences": 1,
        }
        assert '"empty"' in source.notes[-1]


def test_intents_of_watson_actions_have_the_titles_of_their_actions(tmp_path: Path) -> None:
    workspace = {
        "intents": [
            {"intent": "action_1_intent_2", "examples": [{"text": "pay my bill"}]},
            {"intent": "hello", "examples": [{"text": "good morning"}]},
        ],
        "actions": [
            {
                "action": "action_1",
                "title": "Pay a bill",
                "condition": {"intent": "action_1_intent_2"},
            },
            {"action": "welcome", "condition": {"expression": "welcome"}},
        ],
    }
    source = read(write_json(tmp_path / "skill.json", {"type": "action", "workspace": workspace}))

    assert pairs(source.rows["all"]) == [("pay my bill", "Pay a bill"), ("good morning", "hello")]
    assert source.notes == ["Intents of actions are named by the titles of their actions."]


def test_skills_of_watson_in_several_languages_must_be_chosen_from(tmp_path: Path) -> None:
    intents = [
        {"intent": "hello", "examples": [{"text": "Moin"}]},
        {"intent": "pay", "examples": [{"text": "zahlen"}]},
    ]
    german = {"language": "de", "intents": intents}
    tree = {"en.json": WATSON, "de.json": german, "README.md": "# Bank"}
    folder = write_tree(tmp_path / "skills", tree)

    with pytest.raises(DataError, match=r"en \(3\), de \(2\)"):
        read(folder)
    assert pairs(read(folder, language="de").rows["all"]) == [("Moin", "hello"), ("zahlen", "pay")]


OTHER_FILES: dict[str, Any] = {
    "table": [{"text": "pay now", "label": "pay"}],
    "nested table": {"rows": [{"text": "pay now", "intent": "pay"}]},
    "table of utterances": {"utterances": [{"text": "pay now", "intent": "pay", "entities": []}]},
    "table of sentences": {"sentences": [{"text": "pay now", "intent": "pay"}]},
    "table of data": {"data": [{"text": "pay now", "entities": [], "label": "pay"}]},
    "CLINC150": {"train": [["pay now", "pay"]], "val": [["pay", "pay"]], "test": [["p", "pay"]]},
    "tutorial": {"intents": [{"tag": "pay", "patterns": ["pay now"], "responses": ["done"]}]},
    "tutorial with examples": {
        "language": "en",
        "intents": [{"intent": "pay", "examples": ["pay now"]}],
    },
    "intents by name": {"intents": {"pay": {"examples": ["pay now"]}}},
    "numbers": [1, 2],
    "nothing": {},
    "resource": {"resource": {"name": "pay", "intents": [3]}},
}
"""JSON that no platform has written."""


@pytest.mark.parametrize("name", OTHER_FILES)
def test_no_platform_claims_other_json(tmp_path: Path, name: str) -> None:
    tree = {"train.json": OTHER_FILES[name], "train_usersays_en.json": OTHER_FILES["table"]}
    for path in (write_tree(tmp_path / "files", tree), write_zip(tmp_path / "files.zip", tree)):
        files = open_files(path)
        claimed = [one.name for one in TOOLS if one.find(files)]
        assert claimed == []


def test_two_watson_actions_of_one_title_stay_two_intents(tmp_path: Path) -> None:
    intents = [
        {"intent": f"action_{number}_intent", "examples": [{"text": f"sentence {number}"}]}
        for number in (1, 2)
    ]
    actions = [
        {"title": "Untitled", "condition": {"intent": intent["intent"]}} for intent in intents
    ]
    workspace = {"intents": intents, "actions": actions}

    source = read(write_json(tmp_path / "skill.json", {"workspace": workspace}))

    labels = [row.label for row in source.rows["all"]]
    assert labels == ["action_1_intent", "action_2_intent"]
