"""Exports of Rasa NLU: every sentence with its intent and line, and a clear word about the rest."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bankintent.config import DataConfig
from bankintent.corpus import sources
from bankintent.corpus.formats.placeholders import count_places, describe_places
from bankintent.corpus.formats.rasa_markup import to_surface
from bankintent.corpus.rows import Row, Source
from bankintent.errors import DataError

NLU = """\
version: "3.1"

nlu:
- intent: open_account  # a comment of YAML
  examples: |
    - open an account
    # a comment among the sentences

    - I want an [account](product) in [Oslo]{"entity": "city", "role": "branch"}
- synonym: card
  examples: |
    - plastic
- regex: iban
  examples: |
    - [A-Z]{2}[0-9]+
- lookup: city
  examples: |
    - Oslo
    - Bergen
- intent: yes
  examples:
  - yes
  - 0.5
  - text: |
      ~
    metadata:
      tone: short
"""

OTHERS = {
    "domain.yml": "intents:\n- open_account\nresponses:\n  utter_a:\n  - text: a\n  utter_b: []\n",
    "data/stories.yml": "stories:\n- story: one\n  steps: []\n- story: two\n  steps: []\n",
    "data/rules.yml": "rules:\n- rule: one\n  steps: []\n",
    "config.yml": "pipeline: []\n",
    "endpoints.yml": 'nlu:\n  url: "http://localhost"\n',
    "tests/test_stories.yml": "stories:\n- story: three\n  steps:\n  - user: |\n      hi\n",
    "README.md": "```\n## intent:hi\n- hi\n```\n",
}

MARKDOWN = """\
# sentences of a bank
## intent:open_account
- open an account
* [Oslo](city:oslo) please
+ now
<!-- - old
- older -->
- at once

## synonym:card
- plastic
## regex:iban
- [A-Z]{2}
## lookup:city
data/cities.txt
## intent: faq/ask_price
- how much
"""


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return folder


def read(path: Path, **more: Any) -> Source:
    return sources.read(DataConfig(dataset_name=f"{path.absolute()}", **more))


def read_text(content: str, name: str = "nlu.yml", **more: Any) -> Source:
    Path(name).write_text(content, encoding="utf-8")
    return read(Path(name), **more)


def pairs(rows: list[Row]) -> list[tuple[str, str]]:
    return [(row.text, row.label) for row in rows]


def nlu(*intents: tuple[str, ...]) -> str:
    """A YAML file of (intent, sentence, ...)."""
    lines = ["nlu:"]
    for intent, *sentences in intents:
        lines += [f"- intent: {intent}", "  examples: |"]
        lines += [f"    - {sentence}" for sentence in sentences]
    return "\n".join(lines) + "\n"


def message_of(content: str, name: str = "nlu.yml") -> str:
    with pytest.raises(DataError) as caught:
        read_text(content, name)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_yaml_gives_each_sentence_with_its_intent_and_line() -> None:
    source = read_text(NLU)

    assert source.rows.keys() == {"all"}
    assert pairs(source.rows["all"]) == [
        ("open an account", "open_account"),
        ("I want an account in Oslo", "open_account"),
        ("yes", "yes"),
        ("0.5", "yes"),
        ("~", "yes"),
    ]
    lines = NLU.split("\n")
    found = [lines[(row.line or 0) - 1].strip(" -") for row in source.rows["all"]]
    assert found[0] == "open an account"
    assert found[1].startswith("I want an")
    assert found[2:] == ["yes", "0.5", "~"]
    assert [row.number for row in source.rows["all"]] == [1, 2, 3, 4, 5]
    assert {row.origin for row in source.rows["all"]} == {"nlu.yml"}


def test_yaml_counts_what_is_left() -> None:
    left = read_text(NLU).left
    assert left == {"synonyms": 1, "regexes": 1, "lookups": 1, "entities (their words stay)": 2}


@pytest.mark.parametrize("is_zip", [False, True])
def test_a_project_is_read_in_any_depth(tmp_path: Path, is_zip: bool) -> None:
    files = OTHERS | {"data/nlu.yml": nlu(("a", "one")), "data/nlu/faq/b.yaml": nlu(("b", "two"))}
    folder = write(tmp_path / "bot", files)
    if is_zip:
        with zipfile.ZipFile("bot.zip", "w") as archive:
            for name in files:
                archive.write(folder / name, f"bot/{name}")
        folder = Path("bot.zip")

    source = read(folder)
    assert sorted(pairs(source.rows["all"])) == [("one", "a"), ("two", "b")]
    assert source.left == {"stories": 3, "rules": 1, "responses": 2}
    assert len(source.reading) == 2


def test_what_stands_beside_the_sentences_may_be_broken(tmp_path: Path) -> None:
    files = {"nlu.yml": nlu(("a", "one")), "domain.yml": "responses:\n\t- x\n"}
    assert pairs(read(write(tmp_path, files)).rows["all"]) == [("one", "a")]


def test_the_parts_of_one_file_are_counted() -> None:
    source = read_text(nlu(("a", "one")) + "responses:\n  utter_a: []\nrules:\n- rule: one\n")
    assert source.left == {"responses": 1, "rules": 1}


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        ("nlu:\n- intent: a\n\texamples: |\n    - x\n", 3, "tab"),
        ("nlu:\n\t- intent: a\n", 2, "tab"),
        ("nlu:\n- intent: a\n  examples: |\n    - x\n\t- y\n", 5, "tab"),
        ("nlu:\n- intent: a\n  examples: |\n    - x\n   - y\n", 5, "indentation"),
        ("nlu:\n- intent: a\n   examples: |\n    - x\n", 3, "colon"),
        ("nlu:\n- intent: a\n  examples:\n  - 'x\n  - y\n", 4, "quotation mark"),
        ("nlu:\n- intent: a\n  examples:\n  - @x\n", 4, "quotation marks"),
        ("nlu:\n- intent: a\n  examples:\n  - *x\n", 4, "quotation marks"),
        ("nlu:\n- intent: a\n  examples:\n  - [x](y) z\n", 4, "quotation marks"),
        ("nlu:\n- intent: a\n  examples: |\n    - x\n    - \x07\n", 5, "U+0007"),
        (nlu(("a", "x")) + "nlu:\n- intent: b\n", 5, "first on line 1"),
        ("nlu:\n- intent: a\n  examples: |\n    - x\n  examples: |\n    - y\n", 5, "line 3"),
        ("nlu:\n- intent: a\n- intent: b\n  examples: |\n    - x\n", 2, '"a" has no sentences'),
        ("nlu:\n- intent: a\n  examples: |\n\n    # x\n", 2, '"a" has no sentences'),
        ("nlu:\n- intent: a\n  examples: |\n    x\n    y\n", 2, '"a" has no sentences'),
        ("nlu:\n- intent: a\n  examples:\n    b: c\n", 3, "examples is no list"),
        ("nlu:\n- intent: a\n  examples:\n  - b: c\n", 4, "no text"),
        ("nlu:\n- intent: a\n  examples:\n  - [b]\n", 4, "bracket"),
        ("nlu:\n- intent: a\n  examples: >\n    - b\n", 3, "examples: |"),
        ("nlu:\n- intent:\n  examples: |\n    - b\n", 2, "no name"),
        ("nlu:\n- intnet: a\n  examples: |\n    - b\n", 2, "intnet, examples"),
        ("nlu:\n  intent: a\n", 1, "nlu is no list"),
        ("nlu:\n- a\n", 2, "no key"),
        (nlu(("a", "x", "intent: b")), 5, "intent: b"),
        (nlu(("a", "x")) + "    -  intent: b\n", 5, "intent: b"),
    ],
)
def test_a_broken_file_is_refused_with_its_line(content: str, line: int, words: str) -> None:
    message = message_of(content)
    assert message.startswith(f"nlu.yml line {line}: ")
    assert words in message


def test_a_file_that_is_no_unicode_is_refused_with_its_line() -> None:
    Path("nlu.yml").write_bytes(nlu(("a", "Köln")).encode("cp1252"))
    with pytest.raises(DataError, match=r"nlu\.yml line 4 .*encoding=cp1252"):
        read(Path("nlu.yml"))
    assert pairs(read(Path("nlu.yml"), encoding="cp1252").rows["all"]) == [("Köln", "a")]


def test_lines_without_a_dash_are_left_and_named() -> None:
    source = read_text(
        "nlu:\n- intent: a\n  examples: |\n    - one\n      more\n   \t \n    -two\n"
    )
    assert pairs(source.rows["all"]) == [("one", "a"), ("two", "a")]
    assert source.left == {"lines without a dash": 1}
    assert "nlu.yml line 5" in source.notes[0]


def test_lines_are_counted_as_an_editor_counts_them() -> None:
    source = read_text(nlu(("a", "one\u2028more", "two\x85", "three")))
    assert [row.line for row in source.rows["all"]] == [4, 5, 6]


def test_an_intent_may_have_keys_of_its_own() -> None:
    source = read_text("nlu:\n- intent:\n    name: a\n  metadata: {}\n  examples: |\n    - one\n")
    assert pairs(source.rows["all"]) == [("one", "a")]


def test_an_empty_sentence_is_left_for_the_cleaning_to_refuse() -> None:
    source = read_text("nlu:\n- intent: a\n  examples: |\n    - one\n    -\n")
    assert [row.text for row in source.rows["all"]] == ["one", ""]


def test_no_version_and_other_versions_are_read() -> None:
    for head in ("", 'version: "1.0"\n', "version: 2\n", "---\n", "\ufeff# a bot\n"):
        assert pairs(read_text(head + nlu(("a", "one"))).rows["all"]) == [("one", "a")]


@pytest.mark.parametrize(
    ("sentence", "surface", "entities", "is_stray"),
    [
        ("to [New York](city) now", "to New York now", 1, False),
        ("to [NY](city:New York)[.](end)", "to NY.", 2, False),
        ('[x]{"entity": "a", "value": "b"}', "x", 1, False),
        ('[x]{"entity": "a", "role": "to", "group": "1"}!', "x!", 1, False),
        ('[x]{"entity": "a", "value": "{b}"}', "x", 1, False),
        ("[x]{entity: a}", "x", 1, False),
        ('[x][{"entity": "a"}, {"entity": "b"}]', "x", 1, False),
        ('[x][{"entity": "a"}, {"entity": "b"}] y [z](c)', "x y z", 2, False),
        ("[festival] is the name", "[festival] is the name", 0, True),
        ("[x] (city)", "[x] (city)", 0, True),
        ('x{"entity": "a"}', 'x{"entity": "a"}', 0, True),
        ("to [x", "to [x", 0, True),
        ("to [x](city", "to [x](city", 0, True),
        ("[x][y]", "[x][y]", 0, True),
        ("[](city)", "[](city)", 0, True),
        ("to {city} or {{city}}", "to {city} or {{city}}", 0, False),
        ("plain (as it is): 5", "plain (as it is): 5", 0, False),
    ],
)
def test_markup_becomes_what_people_say(
    sentence: str, surface: str, entities: int, is_stray: bool
) -> None:
    found = to_surface(sentence)
    assert (found.text, found.entities, found.is_stray) == (surface, entities, is_stray)


def test_brackets_that_mark_nothing_are_named() -> None:
    source = read_text(nlu(("a", "[festival] is the name", "[Oslo](city)")))
    assert pairs(source.rows["all"]) == [("[festival] is the name", "a"), ("Oslo", "a")]
    assert ": 1, kept as they are (nlu.yml line 4)" in source.notes[0]


def test_retrieval_intents_stay_whole_or_are_joined() -> None:
    content = nlu(("faq/price", "one"), ("faq/place", "two"), ("bye+thanks", "three"))

    whole = read_text(content)
    assert [row.label for row in whole.rows["all"]] == ["faq/price", "faq/place", "bye+thanks"]
    assert whole.notes[0].startswith("Retrieval intents: 2, each kept")
    assert "bye+thanks" in whole.notes[1]

    base = read_text(content, retrieval="base")
    assert [row.label for row in base.rows["all"]] == ["faq", "faq", "bye+thanks"]
    assert base.notes[0].startswith("Retrieval intents: 2, joined")


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train.yml", "test.yml"),
        ("data/train/nlu.yml", "data/test/nlu.yml"),
        ("train_test_split/training_data.yml", "train_test_split/test_data.yml"),
    ],
)
def test_train_and_test_files_are_splits(tmp_path: Path, train: str, test: str) -> None:
    files = {train: nlu(("a", "one")), test: nlu(("a", "two"))}
    source = read(write(tmp_path, files))
    assert {name: pairs(rows) for name, rows in source.rows.items()} == {
        "train": [("one", "a")],
        "test": [("two", "a")],
    }


def test_sentences_beside_the_splits_are_trained_on_unless_they_stand_in_them(
    tmp_path: Path,
) -> None:
    files = {
        "data/nlu.yml": nlu(("a", "one", "two", "three")),
        "train_test_split/training_data.yml": nlu(("a", "one")),
        "train_test_split/test_data.yml": nlu(("a", "two")),
    }
    source = read(write(tmp_path, files))
    assert [row.text for row in source.rows["train"]] == ["one", "three"]
    assert [row.text for row in source.rows["test"]] == ["two"]
    assert source.left == {"sentences beside train and test that stand in them already": 2}


def test_a_test_file_alone_is_no_split(tmp_path: Path) -> None:
    source = read(write(tmp_path, {"nlu.yml": nlu(("a", "one")), "test.yml": nlu(("a", "two"))}))
    assert source.rows.keys() == {"all"}


def test_markdown_gives_each_sentence_with_its_intent_and_line() -> None:
    source = read_text(MARKDOWN, "nlu.md")
    assert [(row.text, row.label, row.line) for row in source.rows["all"]] == [
        ("open an account", "open_account", 3),
        ("Oslo please", "open_account", 4),
        ("now", "open_account", 5),
        ("at once", "open_account", 8),
        ("how much", "faq/ask_price", 17),
    ]
    assert source.left == {
        "synonyms": 1,
        "regexes": 1,
        "lookups": 1,
        "entities (their words stay)": 1,
    }


def test_stories_and_texts_in_markdown_are_no_sentences(tmp_path: Path) -> None:
    files = {
        "data/nlu.md": "## intent:a\n- one\n",
        "data/stories.md": "## first\n* a\n  - utter_a\n## second\n* a\n  - utter_b\n",
        "README.md": "## intent:b\n- how to write them\n",
        "docs.md": "## Bots\n```md\n## intent:b\n- two\n```\n",
    }
    source = read(write(tmp_path, files))
    assert pairs(source.rows["all"]) == [("one", "a")]
    assert source.left == {"stories": 2}


def test_a_heading_of_an_intent_with_one_sign_is_one() -> None:
    source = read_text(
        "# intent:a\n- one\n# intents of people who ask\n## intent:b\n- two\n", "nlu.md"
    )
    assert pairs(source.rows["all"]) == [("one", "a"), ("two", "b")]


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        ("## intent:a\n## intent:b\n- one\n", 1, '"a" has no sentences'),
        ("## intent:b\n- one\n## intent:a\n", 3, '"a" has no sentences'),
        ("## intent:a\n- one\n## bye\n- two\n", 4, '"bye"'),
        ("## intent:a\n- one\n## intent:\n- two\n", 3, "no name"),
        ("- one\n## intent:a\n- two\n", 1, "above the first heading"),
    ],
)
def test_broken_markdown_is_refused_with_its_line(content: str, line: int, words: str) -> None:
    message = message_of(content, "nlu.md")
    assert message.startswith(f"nlu.md line {line}: ")
    assert words in message


def rasa_json(**data: Any) -> str:
    return json.dumps({"rasa_nlu_data": data}, indent=2)


def test_json_gives_each_sentence_with_its_intent_and_line() -> None:
    entity = {"start": 0, "end": 4, "value": "Oslo", "entity": "city"}
    content = rasa_json(
        common_examples=[
            {"intent": "a", "text": "[one](not) markup", "entities": []},
            {"text": "Oslo, \"now\"", "intent": "b", "entities": [entity]},
            {"text": "no intent", "entities": []},
        ],
        entity_synonyms=[{"value": "a", "synonyms": ["b"]}],
        regex_features=[{}, {}],
        lookup_tables=[],
    )  # fmt: skip
    source = read_text(content, "nlu.json")

    assert pairs(source.rows["all"]) == [("[one](not) markup", "a"), ('Oslo, "now"', "b")]
    lines = content.split("\n")
    assert [lines[(row.line or 0) - 1].split()[1][:4] for row in source.rows["all"]] == [
        '"[on',
        '"Osl',
    ]
    assert source.left == {
        "synonyms": 1,
        "regexes": 2,
        "entities (their words stay)": 1,
        "examples without an intent": 1,
    }


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"rasa_nlu_data": {"common_examples": [\n{"text": }]}}', "nlu.json line 2 is not JSON"),
        ('{"rasa_nlu_data": []}', '"rasa_nlu_data" is no object'),
        ('{"rasa_nlu_data": {"common_examples": {"a": 1}}}', '"common_examples" is no list'),
        ('{"rasa_nlu_data": {"common_examples": [\n{"intent": "a"}]}}', "no text"),
        ('{"rasa_nlu_data": {"common_examples": [\n{"text": "a", "intent": 1}]}}', "line 2"),
    ],
)
def test_broken_json_is_refused(content: str, words: str) -> None:
    assert words in message_of(content, "nlu.json")


def test_an_export_without_sentences_is_refused() -> None:
    message = message_of("nlu:\n- lookup: city\n  examples: |\n    - Oslo\n")
    assert "Rasa NLU (YAML) without sentences" in message


@pytest.mark.parametrize("name", ["domain.yml", "notes.md", "notes.txt", "empty.zip"])
def test_a_file_in_no_known_format_is_refused_with_the_known_ones(name: str) -> None:
    Path(name).write_text("responses:\n  utter_a: []\n", encoding="utf-8")
    if name == "empty.zip":
        zipfile.ZipFile(name, "w").close()

    with pytest.raises(DataError) as caught:
        read(Path(name))
    assert name in str(caught.value)
    assert "exports of Rasa, LUIS, CLU, Dialogflow" in str(caught.value)


def test_a_folder_without_sentences_is_refused_with_the_known_formats(tmp_path: Path) -> None:
    folder = write(tmp_path / "bot", {"domain.yml": "responses: {}\n"})
    with pytest.raises(DataError, match=r"domain\.yml.*an export of Rasa, LUIS"):
        read(folder)


def test_places_of_templates_are_counted_and_other_signs_are_not() -> None:
    texts = [
        "to {city}, {city} and { day }",
        "to {city} with {{ name }} or ${price}",
        "on @sys.date:date at @sys.time",
        "write to me@example.org or cc@a.b, $5, US$ and @home, 50 {}",
        *["ask @agent about $stock"] * 3,
        *["mail info@bank.example, $20"] * 3,
    ]
    assert count_places(texts) == {
        "@agent": 3,
        "$stock": 3,
        "{city}": 2,
        "{day}": 1,
        "{{name}}": 1,
        "${price}": 1,
        "@sys.date:date": 1,
        "@sys.time": 1,
    }
    assert list(count_places(["{b}", "{a}", "{a}"])) == ["{a}", "{b}"]


def test_places_of_templates_are_named_in_a_note() -> None:
    source = read_text(nlu(("a", "to {city}", "from {city} on {day}", "now")))
    note = "Sentences with places of a template: 2. They are learned as they are"
    assert source.notes[0].startswith(note)
    assert "{city} (2), {day} (1)" in source.notes[0]
    assert describe_places(["now", "$5"]) is None
