"""What all formats of exports have in common: languages, what is read, what is said of it."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from conftest import Run, write_yaml
from tiny_models import rows

import etl
from bankintent.config import DataConfig
from bankintent.corpus import cleaning, sources
from bankintent.corpus.figures import DataReport
from bankintent.corpus.formats.languages import Languages
from bankintent.corpus.formats.registry import FORMATS
from bankintent.corpus.report import facts
from bankintent.corpus.rows import Reading, Row, Source
from bankintent.errors import DataError

Counts = dict[str, dict[str, int]]
"""Sentences by language and intent."""


def read(name: str, **more: Any) -> Source:
    return sources.read(DataConfig(dataset_name=f"./{name}", **more))


def message(name: str, **more: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(name, **more)
    said = str(caught.value)
    assert "\n" not in said
    return said


def write(name: str, content: Any) -> None:
    """A file; what is no text is written as JSON."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding="utf-8")


def pairs(rows: list[Row]) -> list[tuple[Any, Any]]:
    return [(row.text, row.label) for row in rows]


def languages(counts: Counts) -> Languages:
    found = Languages()
    for language, intents in counts.items():
        for intent, count in intents.items():
            found.add(language, intent, count)
    return found


def choose(counts: Counts, wanted: str | None = None) -> set[str]:
    return set(languages(counts).choose(Path("bot"), wanted).names)


TWO: Counts = {"en-us": {"a": 4, "b": 4}, "de": {"a": 3, "b": 3}}


def test_a_language_must_be_chosen_and_the_one_with_the_most_sentences_is_named() -> None:
    with pytest.raises(DataError) as caught:
        choose(TWO)
    expected = "bot has sentences in 2 languages: en-us (8), de (6)."
    assert str(caught.value).startswith(expected)
    assert str(caught.value).endswith("--set language=en.")


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("en", {"en-us", "en_GB"}),
        ("EN_us", {"en-us"}),
        ("pt", {"pt"}),
        ("pt-br", {"pt-br"}),
        ("none", {""}),
    ],
)
def test_a_language_stands_for_its_forms_unless_one_has_that_very_name(
    wanted: str, names: set[str]
) -> None:
    both = {"a": 3, "b": 3}
    found = {"en-us": both, "en_GB": both, "pt": both, "pt-br": both, "": both}
    assert choose(found, wanted) == names


def test_a_language_without_sentences_is_refused_with_those_there_are() -> None:
    with pytest.raises(DataError, match=r"no sentences in fr; its languages are en-us \(8\), de"):
        choose(TWO, "fr")


def test_forms_of_one_language_need_no_choice_and_are_named() -> None:
    choice = languages({"en-us": {"a": 1, "b": 1}, "en-gb": {"a": 1}}).choose(Path("bot"), None)
    assert choice.names == {"en-us", "en-gb"}
    assert choice.left == {}
    assert "en-gb, en-us are read as one language" in choice.notes[0]


@pytest.mark.parametrize(
    "others",
    [
        {"da": {"welcome": 18}, "fr": {"welcome": 14}},
        {"da": {"welcome": 1, "bye": 1}},
    ],
)
def test_languages_of_little_weight_are_left_without_a_question(others: Counts) -> None:
    choice = languages({"en": {"welcome": 14, "book": 10}, **others}).choose(Path("bot"), None)
    assert choice.names == {"en"}
    assert sum(choice.left.values()) == sum(sum(one.values()) for one in others.values())
    assert choice.notes[0].startswith("Sentences in en are read, 24 of")
    assert "da (" in choice.notes[0]


def test_an_export_that_names_no_language_has_the_wanted_one() -> None:
    assert choose({"": {"a": 1}}, "fr") == {""}
    assert choose({"": {}}) == set()
    assert choose({"en": {"a": 0}}) == {"en"}


ALEXA = {
    "interactionModel": {
        "languageModel": {
            "invocationName": "my bank",
            "intents": [
                {"name": "Pay", "samples": ["pay {Sum}", "pay now"], "slots": [{"name": "Sum"}]},
                {"name": "Limit", "samples": ["raise my limit"]},
                {"name": "Later", "samples": []},
                {"name": "AMAZON.HelpIntent", "samples": []},
            ],
            "types": [{"name": "Sums", "values": []}],
        }
    }
}


def test_a_model_of_alexa_gives_its_samples_with_their_slots() -> None:
    write("skill/interactionModels/custom/en-US.json", ALEXA)
    write("skill/skill.json", {"manifest": {}})
    write("old.json", ALEXA["interactionModel"])

    for name in ("skill", "old.json"):
        source = read(name)
        expected = [("pay {Sum}", "Pay"), ("pay now", "Pay"), ("raise my limit", "Limit")]
        assert pairs(source.rows["all"]) == expected
        assert source.left == {"slots": 1, "slot types": 1, "intents without sentences": 1}
        assert source.notes[0] == 'Intents without sentences are left: "Later".'
        assert source.unread == []


def test_a_sample_of_alexa_that_is_no_text_is_named() -> None:
    intents = [{"name": "Pay", "samples": ["pay", 3]}]
    write("en-US.json", {"languageModel": {"intents": intents}})
    assert 'en-US.json: the samples of "Pay" holds something' in message("en-US.json")


ES_SENTENCE = {"data": [{"text": "pay now"}]}


def write_agent(folder: str) -> None:
    """An agent of Dialogflow ES of two intents, each with a sentence."""
    write(f"{folder}/agent.json", {"language": "en"})
    write(f"{folder}/package.json", {"version": "1.0.0"})
    write(f"{folder}/entities/sum.json", {"name": "sum"})
    for intent in ("pay", "limit"):
        write(f"{folder}/intents/{intent}.json", {"name": intent, "responses": []})
        write(f"{folder}/intents/{intent}_usersays_en.json", [ES_SENTENCE])


def test_files_that_belong_to_no_export_are_named_as_not_read() -> None:
    write_agent("bot")
    write("bot/stray.csv", "text,label\na,b\n")
    write("bot/notes/old.xls", "x")
    write("bot/README.md", "# Bot")
    write("bot/main.py", "pass")
    write("bot/LICENSE", "free")

    assert read("bot").unread == ["notes/old.xls", "stray.csv"]


def describe(reading: list[Reading]) -> list[tuple[str, str]]:
    """The facts of files that were read, before those of anything else."""
    report = DataReport.__new__(DataReport)
    values = {"reading": reading, "unread": [], "left": {}, "languages": {"en": 1.0}}
    for name, value in values.items():
        object.__setattr__(report, name, value)
    return [fact for fact in facts(report) if fact[0] in ("Read", "")]


def test_the_files_of_an_export_are_one_line() -> None:
    write_agent("bot")
    with zipfile.ZipFile("bot.zip", "w") as archive:
        for path in sorted(Path("bot").rglob("*.json")):
            archive.write(path, path.relative_to("bot"))

    expected = "2 files, 2 rows, Dialogflow ES"
    assert describe(read("bot").reading) == [("Read", f"bot/: {expected}")]
    assert describe(read("bot.zip").reading) == [("Read", f"bot.zip: {expected}")]

    Path("bot/intents/limit_usersays_en.json").unlink()
    place = "bot/intents/pay_usersays_en.json"
    assert describe(read("bot").reading) == [("Read", f"{place}: 1 rows, Dialogflow ES")]


def test_the_report_counts_the_files_of_an_export_and_names_what_was_not_read(run: Run) -> None:
    for number, (text, intent) in enumerate(rows(10)):
        write(f"bot/intents/{intent}.json", {"name": intent, "responses": []})
        sentence = {"data": [{"text": text}]}
        write(f"bot/{number}/intents/{intent}_usersays_en.json", [sentence])
    write("bot/stray.csv", "text,label\na,b\n")
    result = run(etl.main, "--config", write_yaml(Path("data.yaml"), dataset_name="bot"))
    assert result.code == 0, result.err

    report = Path("data/processed/report.md").read_text(encoding="utf-8")
    for text in (result.out, report):
        assert "bot/: 30 files, 30 rows, Dialogflow ES" in text
        assert "stray.csv" in text
        assert "usersays" not in text
    assert "30 files (sha256 of each in report.json)" in report


def test_tables_stay_a_line_each() -> None:
    tables = [
        Reading("train.csv", "CSV", 2, "text", "label"),
        Reading("test.csv", "CSV", 1, "a", "b"),
    ]
    assert len(describe(tables)) == 2


NLU = "nlu:\n- intent: a\n  examples: |\n    - one\n"


def test_two_formats_in_a_folder_are_refused_with_the_paths_to_name() -> None:
    write("bot/data/nlu.yml", NLU)
    write("bot/nlu.md", "## intent:a\n- one\n")
    said = message("bot")
    assert "Rasa NLU (YAML) in data/nlu.yml and Rasa NLU (Markdown) in nlu.md" in said
    assert "--set dataset_name=bot/data/nlu.yml or --set dataset_name=bot/nlu.md" in said

    write("bot/data/faq.yml", NLU)
    assert "--set dataset_name=bot/data or" in message("bot")

    write("bot/faq.md", "## intent:a\n- one\n")
    write("bot/nlu.yml", NLU)
    assert "Put the files of each into a folder of its own" in message("bot")


@pytest.mark.parametrize("content", ["3", '{"a": 1}', '[{"id": 1, "emoji": "x"}]', "[]"])
def test_json_in_no_known_form_is_refused_with_the_known_tools(content: str) -> None:
    write("data.json", content)
    said = message("data.json")
    assert "known ones: Rasa, LUIS, CLU, Dialogflow, Watson Assistant" in said
    assert len(said) < 700


def test_the_ending_of_json_lines_is_hinted_at_where_they_look_like_it() -> None:
    write("data.json", '{"text": "a", "label": "b"}\n{"text": "c", "label": "d"}\n')
    assert "must end in .jsonl" in message("data.json")
    write("data.json", '[{"text": "a", "label": }]\n')
    assert "jsonl" not in message("data.json")


def test_an_export_in_no_unicode_is_said_to_be_no_utf_8() -> None:
    Path("nlu.yml").write_bytes(NLU.replace("one", "Köln").encode("cp1252"))
    assert message("nlu.yml").startswith("nlu.yml line 4 is not UTF-8.")


LEX = "en_US/Intents/{}/Intent.json"

EMPTY: dict[str, dict[str, Any]] = {
    "Dialogflow ES": {
        "agent.json": {"language": "en"},
        "intents/pay.json": {"name": "pay", "responses": []},
        "intents/limit.json": {"name": "limit", "responses": []},
    },
    "Dialogflow CX": {
        "intents/pay/pay.json": {"name": "1", "displayName": "pay"},
        "intents/limit/limit.json": {"name": "2", "displayName": "limit"},
    },
    "Amazon Lex V2": {
        LEX.format("pay"): {"name": "pay", "sampleUtterances": None},
        LEX.format("limit"): {"name": "limit", "sampleUtterances": []},
    },
    "Watson Assistant": {
        "skill.json": {
            "intents": [{"intent": "pay", "examples": []}, {"intent": "limit", "examples": []}],
            "dialog_nodes": [],
        }
    },
    "CLU project": {
        "clu.json": {
            "assets": {
                "projectKind": "Conversation",
                "intents": [{"category": "pay"}, {"category": "limit"}],
                "utterances": [],
            }
        }
    },
    "LUIS app": {
        "luis.json": {
            "luis_schema_version": "7.0.0",
            "intents": [{"name": "pay"}, {"name": "limit"}, {"name": "None"}],
            "utterances": [],
        }
    },
}
"""Exports whose intents have no sentences."""


@pytest.mark.parametrize("name", EMPTY)
def test_an_export_without_sentences_names_its_intents(name: str) -> None:
    for file, content in EMPTY[name].items():
        write(f"bot/{file}", content)
    said = message("bot")
    assert f"is an export of {name} without sentences of intents" in said
    assert "its intents have none: " in said
    assert "pay" in said
    assert "limit" in said
    assert "None" not in said


def test_negative_examples_alone_are_no_dataset() -> None:
    write("bot/intents/no.json", {"name": "no", "fallbackIntent": True})
    write("bot/intents/no_usersays_en.json", [ES_SENTENCE])
    assert "; sentences out of scope: 1" in message("bot")


def test_an_export_of_one_intent_is_not_told_to_check_a_column() -> None:
    write("nlu.yml", NLU)
    config = DataConfig(dataset_name="nlu.yml")
    with pytest.raises(DataError) as caught:
        cleaning.clean_all(sources.read_all(config), config)
    assert "fewer than two intents" in str(caught.value)
    assert "column" not in str(caught.value)


def test_every_format_has_a_name_of_its_own_and_a_tool() -> None:
    names = [format.name for format in FORMATS]
    assert len(set(names)) == len(names)
    assert all(format.tool for format in FORMATS)
