"""Exports of Label Studio, doccano and Prodigy, and folders of save_to_disk: their sentences and what is left."""

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bankintent.config import DataConfig
from bankintent.corpus import cleaning, sources
from bankintent.corpus.rows import Source
from bankintent.errors import DataError


def write_json(name: str, content: Any) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


def as_lines(records: list[Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def write_lines(name: str, records: list[Any]) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(as_lines(records), encoding="utf-8")
    return path


def write_zip(name: str, files: dict[str, list[Any]]) -> Path:
    path = Path(name)
    with zipfile.ZipFile(path, "w") as archive:
        for inner, records in files.items():
            archive.writestr(inner, as_lines(records))
    return path


def read(path: Path, **more: Any) -> Source:
    return sources.read(DataConfig(dataset_name=f"./{path}", **more))


def pairs_of(source: Source, split: str = "all") -> list[tuple[Any, Any]]:
    return [(row.text, row.label) for row in source.rows[split]]


def refusals(source: Source) -> list[str]:
    _, refused = cleaning.clean(source.rows["all"], 1000)
    return [row.reason for row in refused]


# Label Studio: JSON.


def choice(*names: str, question: str = "intent", target: str = "text") -> dict[str, Any]:
    """The part of an annotation that is a choice."""
    value = {"choices": list(names)}
    return {"from_name": question, "to_name": target, "type": "choices", "value": value}


def annotation(*results: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": 1, "was_cancelled": False, "ground_truth": False, "result": list(results)} | more


def task(text: str, *annotations: dict[str, Any], **more: Any) -> dict[str, Any]:
    content = {"id": 7, "data": {"text": text}, "predictions": [], "drafts": []}
    return content | {"annotations": list(annotations)} | more


def test_label_studio_gives_the_chosen_intents() -> None:
    tasks = [task("hello", annotation(choice("greet"))), task("bye", annotation(choice("leave")))]
    source = read(write_json("export.json", tasks))

    assert pairs_of(source) == [("hello", "greet"), ("bye", "leave")]
    assert source.left == {}
    [reading] = source.reading
    assert (reading.file, reading.format, reading.rows) == ("export.json", "Label Studio (JSON)", 2)


def test_label_studio_leaves_and_counts_what_has_no_choice() -> None:
    tasks = [
        task("hello", annotation(choice("greet"))),
        task("no one", was_cancelled=True),
        task("skipped", annotation(was_cancelled=True)),
        task("not chosen", annotation()),
        task("skipped by one", annotation(was_cancelled=True), annotation(choice("leave"))),
    ]
    source = read(write_json("export.json", tasks))

    assert pairs_of(source) == [("hello", "greet"), ("skipped by one", "leave")]
    assert source.left == {
        "tasks without an annotation": 1,
        "skipped tasks": 1,
        "tasks without a choice": 1,
    }


def test_annotators_of_label_studio_who_disagree_are_left_and_named() -> None:
    tasks = [
        task("agreed", annotation(choice("greet")), annotation(choice("greet"))),
        task("disputed", annotation(choice("greet")), annotation(choice("leave"))),
        task("true", annotation(choice("greet")), annotation(choice("leave"), ground_truth=True)),
    ]
    source = read(write_json("export.json", tasks))

    assert pairs_of(source) == [("agreed", "greet"), ("true", "leave")]
    assert source.left == {"tasks whose annotators disagree": 1}
    assert source.notes == [
        "1 sentence has different intents in different annotations, and none of them is taken; the "
        "first is at export.json task 2 (id 7)."
    ]


def test_label_studio_reads_older_exports_and_single_tasks() -> None:
    old = {"id": 1, "data": {"text": "old"}, "completions": [{"id": 1, "result": [choice("a")]}]}
    write_json("tasks/1.json", old)
    write_json("tasks/2.json", task("new", annotation(choice("b"))))

    assert pairs_of(read(Path("tasks"))) == [("old", "a"), ("new", "b")]


def test_several_choices_are_refused_by_cleaning() -> None:
    both = task("both", annotation(choice("leave", "greet")))
    again = task(
        "again", annotation(choice("greet", "leave")), annotation(choice("leave", "greet"))
    )
    source = read(write_json("export.json", [task("a", annotation(choice("x"))), both, again]))

    assert pairs_of(source)[1:] == [("both", ["greet", "leave"]), ("again", ["greet", "leave"])]
    assert refusals(source) == [cleaning.SEVERAL_INTENTS] * 2


def test_the_text_of_a_task_is_where_its_choice_points() -> None:
    data = {"note": "from the web", "mail": "hello", "number": 3}
    tasks = [task("", annotation(choice("greet", target="mail")), data=data)]
    assert pairs_of(read(write_json("a.json", tasks))) == [("hello", "greet")]

    tasks = [task("", annotation(choice("greet", target="doc")), data=data)]
    path = write_json("a.json", tasks)
    with pytest.raises(DataError) as error:
        read(path)
    assert str(error.value) == (
        "a.json task 1 (id 7), text: it may be note, mail. Name one with --set text_column=NAME."
    )
    assert pairs_of(read(path, text_column="mail")) == [("hello", "greet")]

    dollar = [task("", annotation(choice("greet", target="$mail")), data=data)]
    assert pairs_of(read(write_json("a.json", dollar))) == [("hello", "greet")]
    only = [task("", annotation(choice("greet", target="doc")), data={"reviewText": "hello"})]
    assert pairs_of(read(write_json("a.json", only))) == [("hello", "greet")]


def test_of_several_questions_one_is_named() -> None:
    answers = annotation(choice("glad", question="mood"), choice("greet", question="topic"))
    path = write_json("a.json", [task("hello", answers)])

    with pytest.raises(DataError, match="it may be mood, topic"):
        read(path)
    assert pairs_of(read(path, label_column="topic")) == [("hello", "greet")]
    with pytest.raises(DataError, match='there is no "other", but mood, topic'):
        read(path, label_column="other")


def test_parts_of_texts_are_no_choices() -> None:
    span = {"from_name": "ner", "to_name": "text", "type": "labels"}
    span["value"] = {"start": 0, "end": 5, "labels": ["NAME"]}  # type: ignore[assignment]
    part = choice("part", question="parts")
    part["value"] |= {"start": 0, "end": 5}
    tasks = [task("hello", annotation(span, part))]

    with pytest.raises(DataError, match=r"a\.json holds no choice for a sentence"):
        read(write_json("a.json", tasks))
    tasks.append(task("bye", annotation(span, part, choice("leave"))))
    assert pairs_of(read(write_json("a.json", tasks))) == [("bye", "leave")]


def test_a_task_that_is_none_is_named() -> None:
    path = write_json("a.json", [task("hello", annotation(choice("greet"))), "bye"])
    with pytest.raises(DataError, match=r"^a\.json record 2 is not a JSON object"):
        read(path)


# Label Studio: JSON_MIN.


def minimal(id: int, annotator: int = 1, **answers: Any) -> dict[str, Any]:
    start = {"mail": f"mail {id}", "source": "web", "id": id}
    end = {"annotator": annotator, "annotation_id": id * 10 + annotator, "lead_time": 3.2}
    return start | answers | end


def test_json_min_is_read_by_its_only_answer() -> None:
    records = [
        minimal(1, mood="glad"),
        minimal(2, mood={"choices": ["glad", "angry"]}),
        minimal(3),
        minimal(4, annotator=1, mood="glad"),
        minimal(4, annotator=2, mood="angry"),
    ]
    path = write_json("min.json", records)

    with pytest.raises(DataError, match="text: it may be mail, source"):
        read(path)
    source = read(path, text_column="mail")
    assert pairs_of(source) == [("mail 1", "glad"), ("mail 2", ["angry", "glad"])]
    assert source.left == {"tasks without a choice": 1, "tasks whose annotators disagree": 1}


def test_json_min_with_known_names_needs_no_config() -> None:
    records = [{"text": "hello", "id": 1, "note": "x", "intent": "greet"}]
    records[0] |= {"annotator": 1, "annotation_id": 1, "lead_time": 1.0}
    assert pairs_of(read(write_json("min.json", records))) == [("hello", "greet")]


# doccano.


def test_doccanos_lists_of_labels_are_read() -> None:
    records = [
        {"id": 1, "text": "hello", "label": ["greet"], "Comments": []},
        {"id": 2, "text": "none", "label": [], "Comments": []},
        {"id": 3, "text": "both", "label": ["leave", "greet"], "Comments": []},
    ]
    for path in (write_lines("all.jsonl", records), write_json("all.json", records)):
        source = read(path)
        assert pairs_of(source) == [("hello", "greet"), ("both", ["greet", "leave"])]
        assert source.left == {"sentences without a label": 1}
        assert source.reading[0].format == "doccano"
        assert source.rows["all"][1].line == (3 if path.suffix == ".jsonl" else None)


def test_records_that_a_table_has_too_are_left_to_its_reader() -> None:
    records = [
        {"id": 1, "text": "hello", "label": ["greet"]},
        {"id": 2, "text": "b", "label": ["l"]},
    ]
    source = read(write_lines("all.jsonl", records))

    assert source.reading[0].format == "JSON lines"
    examples, _ = cleaning.clean(source.rows["all"], 1000)
    assert [(row.text, row.label_text) for row in examples] == [("hello", "greet"), ("b", "l")]


def test_doccanos_zip_has_a_file_for_each_annotator() -> None:
    first = [{"id": 1, "data": "hello", "label": ["greet"]}, {"id": 2, "data": "x", "label": ["a"]}]
    second = [
        {"id": 1, "data": "hello", "label": ["greet"]},
        {"id": 2, "data": "x", "label": ["b"]},
    ]
    none = [{"id": 3, "data": "unread", "label": []}]
    files = {"admin.jsonl": first, "eve.jsonl": second, "unknown.jsonl": none}
    source = read(write_zip("export.zip", files))

    assert pairs_of(source) == [("hello", "greet")]
    assert source.left == {
        "sentences without a label": 1,
        "sentences with different intents": 1,
    }
    assert "the first is at admin.jsonl line 2" in source.notes[0]


def test_old_doccano_needs_the_names_of_its_labels() -> None:
    records = [
        {
            "id": 1,
            "text": "hello",
            "annotations": [{"label": 3, "user": 1}, {"label": 3, "user": 2}],
        },
        {"id": 2, "text": "none", "annotations": [], "annotation_approver": None},
    ]
    path = write_lines("old/file.jsonl", records)
    with pytest.raises(DataError, match=r"file\.jsonl line 1 has the label 3 without its name"):
        read(path)

    label = {"id": 3, "text": "greet", "background_color": "#209cee", "suffix_key": "g"}
    write_json("old/labels.json", [label])
    source = read(Path("old"))
    assert pairs_of(source) == [("hello", "greet")]
    assert source.left == {"sentences without a label": 1}


def test_old_doccano_may_have_names_beside_the_ids() -> None:
    label = {"label": 3, "label_name": "greet", "user": 1}
    records = [{"id": 1, "text": "hello", "annotations": [label], "annotation_approver": "eve"}]
    assert pairs_of(read(write_lines("old.jsonl", records))) == [("hello", "greet")]


def test_doccanos_intent_detection_is_read() -> None:
    records = [
        {"text": "hello Eve", "entities": [[6, 9, "NAME"]], "cats": ["greet"]},
        {"text": "well", "entities": [], "cats": []},
    ]
    source = read(write_lines("all.jsonl", records))
    assert pairs_of(source) == [("hello Eve", "greet")]
    assert source.left == {"sentences without a label": 1}


def test_doccanos_spans_are_refused() -> None:
    records = [{"id": 1, "text": "hello", "label": [[0, 5, "NAME"]], "Comments": []}]
    with pytest.raises(DataError, match=r"^all\.jsonl line 1 has spans for labels"):
        read(write_lines("all.jsonl", records))


def test_files_named_after_splits_are_splits() -> None:
    record = {"text": "hello", "label": ["greet"], "Comments": []}
    for name in ("train", "test"):
        write_lines(f"both/{name}.jsonl", [record | {"id": 1, "text": name}])

    source = read(Path("both"))
    assert pairs_of(source, "train") == [("train", "greet")]
    assert pairs_of(source, "test") == [("test", "greet")]


@pytest.mark.parametrize("bad", ["{", "[1]"])
def test_a_broken_line_is_named(bad: str) -> None:
    path = write_lines("all.jsonl", [{"id": 1, "text": "a", "label": ["x"], "Comments": []}])
    path.write_text(f"{path.read_text()}\n{bad}\n")
    with pytest.raises(DataError, match=r"^all\.jsonl line 3 is not "):
        read(path)


# Prodigy.


def answered(text: str, answer: str = "accept", **more: Any) -> dict[str, Any]:
    return {"text": text, "_input_hash": hash(text), "_task_hash": 5} | more | {"answer": answer}


def test_prodigy_gives_the_accepted_tasks() -> None:
    tasks = [
        answered("hello", label="greet"),
        answered("hello", "reject", label="leave"),
        answered("bye", "ignore", label="leave"),
        answered("ciao", accept=["leave"], options=[{"id": "leave", "text": "Leave!"}]),
        answered("hm", accept=[]),
        answered("hi", cats={"greet": 1.0, "leave": 0.0}),
        answered("later", accept=[2], options=[{"id": 2, "text": "leave"}]),
    ]
    source = read(write_lines("out.jsonl", tasks))

    assert pairs_of(source) == [
        ("hello", "greet"),
        ("ciao", "leave"),
        ("hi", "greet"),
        ("later", "leave"),
    ]
    assert [row.line for row in source.rows["all"]] == [1, 4, 6, 7]
    assert source.left == {
        "rejected tasks": 1,
        "ignored tasks": 1,
        "accepted tasks without an intent": 1,
    }


def test_several_accepted_intents_are_refused_or_left() -> None:
    tasks = [
        answered("one", accept=["a"]),
        answered("two", accept=["b", "a"]),
        answered("three", accept=["a"], _session_id="eve"),
        answered("three", accept=["b"], _session_id="bob"),
    ]
    source = read(write_lines("out.jsonl", tasks))

    assert pairs_of(source) == [("one", "a"), ("two", ["a", "b"])]
    assert refusals(source) == [cleaning.SEVERAL_INTENTS]
    assert source.left == {"sentences with different intents": 1}


def test_prodigys_spans_are_no_intents() -> None:
    tasks = [answered("hello", spans=[{"start": 0, "end": 5, "label": "NAME"}])]
    with pytest.raises(DataError) as error:
        read(write_lines("out.jsonl", tasks))
    assert str(error.value) == (
        "out.jsonl holds no accepted task with an intent (1 accepted tasks without an intent). "
        "Expected tasks with label, accept or cats; spans are no intents."
    )


@pytest.mark.parametrize("answer", ["maybe", ["accept"]])
def test_another_answer_is_named(answer: Any) -> None:
    tasks = [answered("hello", label="greet"), answered("bye", answer, label="leave")]
    with pytest.raises(DataError, match=r"^out\.jsonl line 2 has the answer"):
        read(write_lines("out.jsonl", tasks))


def test_a_table_with_answers_is_no_export() -> None:
    records = [{"text": "hello", "label": "greet", "answer": "accept"}]
    assert read(write_lines("a.jsonl", records)).reading[0].format == "JSON lines"


# Folders of save_to_disk.

TEXTS = ["hello", "bye", "hi", "ciao"]
INTENTS = ["greet", "leave", "greet", "leave"]


def make_dataset(classes: bool = True) -> Any:
    import datasets

    data = datasets.Dataset.from_dict({"other": range(4), "text": TEXTS, "label": INTENTS})
    if not classes:
        return data
    # Not in the order of the alphabet.
    feature = datasets.ClassLabel(names=["leave", "greet"])
    return data.cast_column("label", feature)


@pytest.mark.parametrize("classes", [True, False])
@pytest.mark.parametrize("shards", [1, 3])
def test_a_saved_dataset_is_read(classes: bool, shards: int) -> None:
    make_dataset(classes).save_to_disk("saved", num_shards=shards)
    source = read(Path("saved"))

    assert pairs_of(source) == list(zip(TEXTS, INTENTS, strict=True))
    assert source.label_order == (("leave", "greet") if classes else None)
    assert [reading.rows for reading in source.reading] == ([4] if shards == 1 else [2, 1, 1])
    assert source.notes == ['Columns of saved: sentences in "text", intents in "label".']


def test_the_splits_of_a_saved_dictionary_are_read() -> None:
    import datasets

    data = make_dataset()
    parts = {"train": data, "validation": data.select([1, 3]), "unsupervised": data}
    datasets.DatasetDict(parts).save_to_disk("saved")
    source = read(Path("saved"))

    assert list(source.rows) == ["train", "val"]
    assert pairs_of(source, "val") == [("bye", "leave"), ("ciao", "leave")]
    assert source.left == {'rows of the split "unsupervised"': 4}
    assert source.reading[0].file.startswith("train/data-00000")

    datasets.DatasetDict({"test": data}).save_to_disk("tests")
    with pytest.raises(DataError, match="tests has no train split; it has test"):
        read(Path("tests"))


def test_a_zip_of_a_saved_dataset_is_read() -> None:
    make_dataset().save_to_disk("saved")
    shutil.make_archive("packed", "zip", ".", "saved")
    assert pairs_of(read(Path("packed.zip"))) == list(zip(TEXTS, INTENTS, strict=True))


def test_columns_of_a_saved_dataset_are_named_like_those_of_a_table() -> None:
    data = make_dataset().rename_columns({"text": "frage", "label": "absicht"})
    data.save_to_disk("saved")

    with pytest.raises(DataError, match="saved has none of the columns text, sentence"):
        read(Path("saved"))
    source = read(Path("saved"), text_column="frage", label_column="absicht")
    assert pairs_of(source) == list(zip(TEXTS, INTENTS, strict=True))


def test_a_missing_or_damaged_part_is_named() -> None:
    make_dataset().save_to_disk("saved", num_shards=2)
    Path("saved/data-00001-of-00002.arrow").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"^data-00001-of-00002\.arrow is no Arrow stream"):
        read(Path("saved"))

    Path("saved/data-00001-of-00002.arrow").unlink()
    with pytest.raises(DataError, match=r"^saved lacks the file data-00001-of-00002\.arrow"):
        read(Path("saved"))


def test_datasets_that_were_saved_one_by_one_are_splits() -> None:
    data = make_dataset()
    for name in ("train", "validation"):
        data.save_to_disk(f"saved/{name}")
    assert list(read(Path("saved")).rows) == ["train", "val"]

    Path("saved/train/dataset_info.json").unlink()
    with pytest.raises(DataError, match=r"^saved lacks the file train/dataset_info\.json"):
        read(Path("saved"))


def test_rows_are_those_that_the_library_loads() -> None:
    import datasets

    data = make_dataset().shuffle(seed=1).filter(lambda row: row["other"] != 2)
    datasets.DatasetDict({"train": data}).save_to_disk("saved", num_shards={"train": 2})

    loaded = datasets.load_from_disk("saved")["train"]
    names = loaded.features["label"].names
    expected = [(row["text"], names[row["label"]]) for row in loaded]
    assert pairs_of(read(Path("saved")), "train") == expected


def test_a_class_without_a_name_is_named() -> None:
    import datasets

    data = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, -1]})
    data = data.cast_column("label", datasets.ClassLabel(names=["greet"]))
    data.save_to_disk("saved")
    assert pairs_of(read(Path("saved"))) == [("a", "greet"), ("b", None)]

    info = json.loads(Path("saved/dataset_info.json").read_text())
    info["features"]["label"]["names"] = ["greet"]
    data = datasets.Dataset.from_dict({"text": ["a"], "label": [4]})
    data.save_to_disk("other")
    Path("other/dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match="row 1 holds the class 4"):
        read(Path("other"))
