"""Folders of text files, and fastText's format."""

import zipfile
from pathlib import Path
from typing import Any

import pytest

from bankintent.config import DataConfig
from bankintent.corpus import sources
from bankintent.corpus.rows import Source
from bankintent.errors import DataError


def write(contents: dict[str, str]) -> None:
    for name, content in contents.items():
        path = Path("data") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode())


def read(name: str = "data") -> Source:
    return sources.read(DataConfig(dataset_name=f"./{name}"))


def found(source: Source) -> dict[str, list[tuple[Any, Any, int | None]]]:
    return {
        split: [(row.label, row.text, row.line) for row in rows]
        for split, rows in source.rows.items()
    }


def message(name: str = "data") -> str:
    with pytest.raises(DataError) as error:
        read(name)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_file_for_each_intent_has_a_sentence_on_each_line() -> None:
    write({"refund.txt": "\ufeffa\r\n\r\n  b \r\n", "limit.txt": "c", "README.txt": "no data"})
    source = read()
    assert found(source) == {"all": [("limit", "c", 1), ("refund", "a", 1), ("refund", "b", 3)]}
    assert [(one.file, one.format, one.rows) for one in source.reading] == [
        ("limit.txt", "text files", 1),
        ("refund.txt", "text files", 2),
    ]
    assert [row.number for row in source.rows["all"]] == [1, 1, 2]
    assert source.notes == []


def test_a_folder_for_each_intent_has_a_sentence_in_each_file_or_line() -> None:
    write({"refund/1.txt": "a\n", "refund/2.txt": "b\n", "limit/1.txt": "c\nd\n"})
    source = read()
    assert found(source) == {
        "all": [("limit", "c", 1), ("limit", "d", 2), ("refund", "a", 1), ("refund", "b", 1)]
    }
    assert source.notes == ["1 of 3 files hold several lines; each line is a sentence."]


@pytest.mark.parametrize("layout", ["{split}/{intent}.txt", "{split}/{intent}/1.txt"])
def test_splits_above_the_intents_are_kept(layout: str) -> None:
    for split in ("train", "test"):
        for intent in ("refund", "limit"):
            write({layout.format(split=split, intent=intent): f"{intent} in {split}"})
    assert found(read()) == {
        "test": [("limit", "limit in test", 1), ("refund", "refund in test", 1)],
        "train": [("limit", "limit in train", 1), ("refund", "refund in train", 1)],
    }


def test_a_zip_with_one_folder_around_everything_is_read() -> None:
    with zipfile.ZipFile("data.zip", "w") as archive:
        archive.writestr("bank/train/refund.txt", "a")
        archive.writestr("bank/train/limit.txt", "b")
        archive.writestr("bank/test/limit.txt", "c")
    assert found(read("data.zip")) == {
        "test": [("limit", "c", 1)],
        "train": [("limit", "b", 1), ("refund", "a", 1)],
    }


def test_an_empty_file_is_named() -> None:
    write({"refund.txt": "a", "limit.txt": "b", "other.txt": " \n"})
    source = read()
    assert len(source.rows["all"]) == 2
    assert source.notes == ['Intents without sentences are left: "other".']


@pytest.mark.parametrize(
    "contents",
    [
        {"refund.txt": "a"},
        {"refund.txt": "a", "limit.txt": "b", "main.py": "c"},
        {"train.txt": "a", "test.txt": "b"},
        {"refund.txt": "a", "limit/1.txt": "b"},
        {"train/refund.txt": "a", "limit.txt": "b"},
        {"a/b/refund.txt": "a", "c/d/limit.txt": "b"},
    ],
)
def test_other_folders_are_not_taken(contents: dict[str, str]) -> None:
    write(contents)
    assert "data holds no train file" in message()


def test_a_file_that_is_no_unicode_is_named_with_its_line() -> None:
    write({"limit.txt": "b"})
    Path("data/refund.txt").write_bytes("a\nÜberweisung".encode("cp1252"))
    assert "refund.txt line 2 is not utf-8" in message().lower()


FASTTEXT = "__label__refund where is my money\r\n\r\n__label__limit\traise it\n"


@pytest.mark.parametrize("name", ["bank.txt", "bank.train", "train.txt"])
def test_a_file_in_fasttexts_format_is_read(name: str) -> None:
    write({name: FASTTEXT})
    source = read(f"data/{name}")
    split = "train" if "train" in name else "all"
    assert found(source) == {split: [("refund", "where is my money", 1), ("limit", "raise it", 3)]}
    assert source.reading[0].format == "fastText"


@pytest.mark.parametrize(
    "names", [("train.txt", "test.txt"), ("bank.train", "bank.test"), ("train/a.txt", "test/a.txt")]
)
def test_splits_of_fasttext_are_kept(names: tuple[str, str]) -> None:
    write({names[0]: FASTTEXT, names[1]: "__label__limit more\n"})
    assert {split: len(rows) for split, rows in found(read()).items()} == {"train": 2, "test": 1}


def test_the_whole_beside_its_splits_is_not_read_twice() -> None:
    write({"bank.txt": FASTTEXT, "bank.train": FASTTEXT, "bank.valid": FASTTEXT})
    source = read()
    assert {split: len(rows) for split, rows in found(source).items()} == {"train": 2, "val": 2}
    assert source.unread == ["bank.txt"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("__label__a __label__b text", "line 3 has 2 labels: __label__a, __label__b"),
        ("no label", "line 3 does not begin with __label__"),
    ],
)
def test_a_line_without_one_label_is_refused(line: str, expected: str) -> None:
    write({"train.txt": f"__label__a text\n\n{line}\n"})
    assert f"train.txt {expected}" in message("data/train.txt")
