"""intents.json in the variants that chatbot tutorials have."""

import json
from pathlib import Path
from typing import Any

import pytest

from bankintent.config import DataConfig
from bankintent.corpus import sources
from bankintent.corpus.formats.files import ExportFile, ExportFiles
from bankintent.corpus.formats.intents_json import FORMAT
from bankintent.corpus.rows import Source
from bankintent.errors import DataError

REFUND = ["I want my money back", "where is my refund"]
LIMIT = ["raise my limit", "how much can I spend"]
OBJECTS = [
    {"tag": "refund", "patterns": REFUND, "responses": ["Soon.", "It is on its way."]},
    {"tag": "limit", "patterns": LIMIT, "responses": "Ask us.", "context_set": ""},
]
WHOLE = [("refund", text) for text in REFUND] + [("limit", text) for text in LIMIT]


def read(content: Any, name: str = "intents.json") -> Source:
    text = content if isinstance(content, str) else json.dumps(content)
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    source = Path(path.parts[0]) if len(path.parts) > 1 else path
    return sources.read(DataConfig(dataset_name=f"./{source}"))


def pairs(source: Source) -> list[tuple[Any, Any]]:
    return [(row.label, row.text) for row in source.pooled()]


def message(content: Any, name: str = "intents.json") -> str:
    with pytest.raises(DataError) as error:
        read(content, name)
    assert "\n" not in str(error.value)
    return str(error.value)


def with_keys(name: str, sentences: str) -> list[dict[str, Any]]:
    return [{name: one["tag"], sentences: one["patterns"]} for one in OBJECTS]


def test_a_tutorials_file_is_read_and_its_answers_are_counted() -> None:
    source = read({"intents": OBJECTS})

    assert pairs(source) == WHOLE
    assert source.left == {"responses": 3}
    assert source.notes == []
    [reading] = source.reading
    assert (reading.format, reading.rows) == ("intents.json", 4)
    assert [row.number for row in source.pooled()] == [1, 2, 3, 4]
    assert {row.origin for row in source.pooled()} == {"intents.json"}


@pytest.mark.parametrize(
    "content",
    [
        OBJECTS,
        {"Intents": OBJECTS},
        {"bot": OBJECTS, "version": 2},
        {"intents": OBJECTS, "faq": with_keys("tag", "patterns")},
        {"intents": OBJECTS, "entities": [{"name": "city", "examples": ["Rome"]}]},
        with_keys("intent", "examples"),
        with_keys("name", "utterances"),
        with_keys("Tag", "Patterns"),
        with_keys("intent", "text"),
        with_keys("intent_name", "Training Phrases"),
        with_keys("category", "questions"),
        {"refund": REFUND, "limit": LIMIT},
        {"intents": {"refund": REFUND, "limit": LIMIT}, "answers": {"refund": ["Soon."]}},
        {"refund": {"patterns": REFUND}, "limit": {"patterns": LIMIT, "responses": ["No."]}},
        {"name": "Corpus", "locale": "en-US", "data": with_keys("intent", "utterances")},
        [{"intent": one["tag"], "text": [{"text": t} for t in one["patterns"]]} for one in OBJECTS],
    ],
)
def test_every_variant_gives_the_same_rows(content: Any) -> None:
    assert pairs(read(content)) == WHOLE


@pytest.mark.parametrize("name", ["name", "query", "topic", "message", "test"])
def test_an_intent_may_have_the_name_of_a_key(name: str) -> None:
    content = {name: {"patterns": REFUND}, "limit": {"patterns": LIMIT}}
    expected = [(name, text) for text in REFUND] + WHOLE[2:]
    assert pairs(read(content)) == expected
    assert pairs(read({"intents": {name: REFUND, "limit": LIMIT}})) == expected


def test_a_workspace_of_watson_is_of_another_tool() -> None:
    examples = [{"text": text} for text in REFUND]
    workspace = {"language": "en", "intents": [{"intent": "refund", "examples": examples}]}
    file = ExportFile("intents.json", json.dumps(workspace).encode)
    assert FORMAT.find(ExportFiles(Path("intents.json"), (file,))) == []


def test_a_single_sentence_may_be_no_list() -> None:
    source = read([*OBJECTS, {"tag": "hello", "patterns": "good day"}])
    assert pairs(source) == [*WHOLE, ("hello", "good day")]


def test_objects_of_the_same_intent_are_joined_and_named() -> None:
    source = read({"intents": [*OBJECTS, {"tag": "refund", "patterns": ["give it back"]}]})

    assert pairs(source) == [*WHOLE, ("refund", "give it back")]
    [note] = source.notes
    assert note.startswith("1 intent is in more than one object")
    assert "refund" in note


@pytest.mark.parametrize("patterns", [[], [""], "", [" ", ""], None])
def test_an_intent_without_sentences_is_left_and_named(patterns: Any) -> None:
    source = read({"intents": [*OBJECTS, {"tag": "fallback", "patterns": patterns}]})

    assert pairs(source) == WHOLE
    assert source.notes == ['Intents without sentences are left: "fallback".']
    assert source.left["intents without sentences"] == 1


def test_an_intent_without_sentences_may_stand_under_its_name() -> None:
    by_name = {one["tag"]: {"patterns": one["patterns"]} for one in OBJECTS}
    source = read({**by_name, "fallback": {"patterns": [], "responses": ["What?"]}})
    assert pairs(source) == WHOLE
    assert source.notes == ['Intents without sentences are left: "fallback".']
    assert source.left["intents without sentences"] == 1

    assert pairs(read({**by_name, "fallback": {"responses": ["What?"]}})) == WHOLE


def test_blank_sentences_among_others_are_counted() -> None:
    source = read([*OBJECTS, {"tag": "hello", "patterns": ["", "good day", " "]}])
    assert pairs(source) == [*WHOLE, ("hello", "good day")]
    assert source.left["empty sentences"] == 2


def test_sentences_under_a_second_key_are_counted() -> None:
    source = read([{**one, "questions": ["really?"]} for one in OBJECTS])
    assert pairs(source) == WHOLE
    assert source.left['sentences under "questions" beside "patterns"'] == 2


def test_a_list_for_each_split_keeps_the_splits() -> None:
    source = read({"train": OBJECTS, "test": with_keys("tag", "patterns")})
    assert {split: len(rows) for split, rows in source.rows.items()} == {"train": 4, "test": 4}


def test_a_folder_with_a_file_for_each_split_keeps_them() -> None:
    read(OBJECTS, "bot/train.json")
    source = read(OBJECTS, "bot/dev.json")
    assert {split: len(rows) for split, rows in source.rows.items()} == {"val": 4, "train": 4}


def test_a_folder_with_a_file_for_each_intent_is_read() -> None:
    for one in OBJECTS:
        source = read(one, f"bot/data/{one['tag']}.json")
    assert sorted(pairs(source), key=str) == sorted(WHOLE, key=str)


def test_a_folder_of_tables_stays_one() -> None:
    Path("bot").mkdir()
    Path("bot/train.csv").write_text("text,label\na,x\nb,y\n", encoding="utf-8")
    source = read({"intents": OBJECTS}, "bot/intents.json")
    assert pairs(source) == [("x", "a"), ("y", "b")]
    assert source.unread == ["intents.json"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([{"text": "a", "intent": "x"}, {"text": "b", "intent": "y"}], [("x", "a"), ("y", "b")]),
        (
            [{"text": "a", "intent": "x", "phrases": ["c"]}, {"text": "b", "intent": "y"}],
            [("x", "a"), ("y", "b")],
        ),
        ({"train": [["a", "x"]], "val": [["b", "y"]], "test": []}, [("x", "a"), ("y", "b")]),
    ],
)
def test_a_table_and_clinc150_keep_their_readers(content: Any, expected: list[Any]) -> None:
    source = read(content)
    assert pairs(source) == expected
    assert source.reading[0].format != "intents.json"


@pytest.mark.parametrize(
    "content",
    [
        {"text": ["a", "b"], "label": ["x", "y"]},
        {"train": ["a"], "test": ["b"]},
        {"entities": {"city": ["Rome"]}, "version": 1},
        {"one": OBJECTS, "two": OBJECTS},
        {"refund": REFUND, "version": "2"},
    ],
)
def test_other_objects_are_not_taken_for_intents(content: Any) -> None:
    assert "intents.json" in message(content)


def test_lists_by_name_are_intents_only_where_the_file_is_named() -> None:
    read({"refund": REFUND, "limit": LIMIT}, "bot/words.json")
    source = read({"intents": OBJECTS}, "bot/intents.json")
    assert [reading.file for reading in source.reading] == ["intents.json"]


@pytest.mark.parametrize(
    ("broken", "line"),
    [
        ('{"intents": [\n{"tag": "refund", "patterns": ["a",\n]}]}', 2),
        ("{'intents': [\n{'tag': 'refund', 'patterns': ['a']}]}", 1),
        ('{"intents": [\n{"tag": "refund"\n"patterns": ["a"]}]}', 3),
    ],
)
@pytest.mark.parametrize("name", ["intents.json", "bot/intents.json"])
def test_broken_json_names_the_line(broken: str, line: int, name: str) -> None:
    found = message(broken, name)
    # The comma before a bracket is one line before it.
    assert f"intents.json line {line} is not JSON" in found or f"line {line + 1} is" in found


def test_a_broken_file_among_others_is_not_passed_over() -> None:
    Path("bot").mkdir()
    Path("bot/greetings.json").write_text('[{"tag": "hello", "patterns": ["good day"]', "utf-8")
    found = message({"intents": OBJECTS}, "bot/intents.json")
    assert "greetings.json line 1 is not JSON" in found


def test_a_broken_file_of_another_tool_is_left_to_it() -> None:
    broken = ExportFile("nlu.json", '{"intent": "a", "examples": ['.encode)
    other = ExportFile("config.yml", "".encode)
    assert FORMAT.find(ExportFiles(Path("bot"), (broken, other))) == []


def test_an_unknown_encoding_names_the_line() -> None:
    text = '{"intents": [{"tag": "limit",\n"patterns": ["Überweisung"]}]}'
    Path("intents.json").write_bytes(text.encode("cp1252"))
    config = DataConfig(dataset_name="./intents.json")
    with pytest.raises(DataError, match=r"intents\.json line 2 is not (?i:utf-8).*encoding=cp1252"):
        sources.read(config)

    named = config.model_copy(update={"encoding": "cp1252"})
    assert pairs(sources.read(named)) == [("limit", "Überweisung")]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([*OBJECTS, {"patterns": ["a"]}], "item 3 of the intents has sentences and no name"),
        ([*OBJECTS, "hello"], "item 3 of the intents is no object"),
        ([*OBJECTS, {"tag": "x", "patterns": {"a": 1}}], '"patterns" of "x" in intents.json'),
        (
            '[{"tag": "a", "patterns": ["b"], "tag": "c", "patterns": ["d"]}]',
            'names "tag" 2 times in one object (a, c)',
        ),
        (
            '{"intents": [{"tag": "a", "patterns": ["b"]}], "intents": []}',
            "intents.json",
        ),
    ],
)
def test_a_fault_names_its_place(content: Any, expected: str) -> None:
    assert expected in message(content)


def test_names_that_differ_by_a_mark_alone_are_two_intents() -> None:
    source = read({"go_to": ["open it"], "goto": ["jump there"]})
    assert pairs(source) == [("go_to", "open it"), ("goto", "jump there")]


def test_an_intent_that_stands_twice_in_an_object_is_refused() -> None:
    found = message('{"refund": ["a"], "limit": ["b"], "refund": ["c"]}')
    assert 'names "refund" 2 times in one object' in found


def test_repeated_answers_are_no_fault() -> None:
    text = '[{"tag": "a", "patterns": ["b"], "responses": ["c"], "responses": ["d"]}]'
    assert pairs(read(text)) == [("a", "b")]
