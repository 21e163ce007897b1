"""From every kind of source to Parquet splits: what is kept, what is refused, and that the bytes repeat."""

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import DATASETS, Run, needs_datasets, rows, write_csv, write_yaml

import etl
from bankintent import files
from bankintent.corpus import dataset
from bankintent.labels import LabelSchema


def config(tmp_path: Path, source: object, **more: object) -> Path:
    return write_yaml(
        tmp_path / "data.yaml", dataset_name=str(source), output_dir=str(tmp_path / "out"), **more
    )


def all_rows(folder: Path) -> list[tuple[str, str]]:
    data = dataset.load(folder)
    parts = [data.read(split) for split in ("train", "val", "test")]
    return [
        (text, data.labels.names[label])
        for part in parts
        for text, label in zip(part.texts, part.labels, strict=True)
    ]


def report(folder: Path) -> dict:  # type: ignore[type-arg]
    return json.loads((folder / "report.json").read_text())  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["csv", "tsv", "semicolon", "jsonl", "json", "parquet", "folder"])
def test_every_file_format_gives_the_same_rows(kind: str, tmp_path: Path, run: Run) -> None:
    pairs = rows()
    source = tmp_path / f"source.{kind}"
    match kind:
        case "csv":
            write_csv(source, pairs)
        case "tsv" | "semicolon":
            mark = "\t" if kind == "tsv" else ";"
            source = tmp_path / ("source.tsv" if kind == "tsv" else "source.csv")
            source.write_text("\n".join(f"{a}{mark}{b}" for a, b in [("text", "intent"), *pairs]))
        case "jsonl":
            source.write_text(
                "\n".join(json.dumps({"utterance": a, "category": b}) for a, b in pairs)
            )
        case "json":
            source.write_text(json.dumps([{"Text": a, "Label": b} for a, b in pairs]))
        case "parquet":
            pq.write_table(
                pa.table({"text": [a for a, _ in pairs], "label": [b for _, b in pairs]}), source
            )
        case "folder":
            source.mkdir()
            write_csv(source / "train.csv", pairs)
    result = run(etl.main, "--config", config(tmp_path, source))
    assert result.code == 0, result.err
    assert Counter(all_rows(tmp_path / "out")) == Counter(pairs)


def test_the_same_config_and_data_give_the_same_bytes(tmp_path: Path, run: Run) -> None:
    path = config(tmp_path, write_csv(tmp_path / "a.csv", rows()))
    assert run(etl.main, "--config", path).code == 0
    first = {
        name: files.sha256(tmp_path / "out" / name) for name in files.list_files(tmp_path / "out")
    }
    assert run(etl.main, "--config", path).code == 0
    assert first == {
        name: files.sha256(tmp_path / "out" / name) for name in files.list_files(tmp_path / "out")
    }
    assert run(etl.main, "--config", path, "--set", "seed=7").code == 0
    assert first["train.parquet"] != files.sha256(tmp_path / "out" / "train.parquet")


def test_parquet_has_the_fixed_schema(data_dir: Path) -> None:
    assert pq.read_schema(data_dir / "train.parquet").equals(dataset.SCHEMA)


def test_splits_are_stratified_disjoint_and_of_the_configured_size(
    tmp_path: Path, run: Run
) -> None:
    path = config(tmp_path, write_csv(tmp_path / "a.csv", rows(40)), test_split=0.2, val_split=0.1)
    assert run(etl.main, "--config", path).code == 0
    data = dataset.load(tmp_path / "out")
    parts = {name: data.read(name) for name in ("train", "val", "test")}
    assert {name: set(Counter(part.labels).values()) for name, part in parts.items()} == {
        "train": {28},
        "val": {4},
        "test": {8},
    }
    ids = [identifier for part in parts.values() for identifier in part.ids]
    assert len(ids) == len(set(ids)) == 120


def test_an_official_test_split_is_kept_whole(tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    write_csv(folder / "train.csv", rows(20))
    test = [(f"{text} test", label) for text, label in rows(5)]
    write_csv(folder / "test.csv", test)
    assert run(etl.main, "--config", config(tmp_path, folder, split="official")).code == 0
    data = dataset.load(tmp_path / "out")
    assert data.read("test").texts == [text for text, _ in test]
    assert len(data.read("train")) + len(data.read("val")) == 60


def test_an_intent_with_few_sentences_is_pointed_out(tmp_path: Path, run: Run) -> None:
    source = write_csv(
        tmp_path / "a.csv", [*rows(), *((f"a person please {i}", "agent") for i in range(3))]
    )
    result = run(etl.main, "--config", config(tmp_path, source))
    assert "1 intent has fewer than 5 training sentences" in " ".join(result.out.split())
    assert "agent (1)" in result.out
    plenty = run(etl.main, "--config", config(tmp_path, write_csv(tmp_path / "b.csv", rows())))
    assert "fewer than 5" not in plenty.out


def test_few_shot_keeps_k_training_rows_of_each_intent(tmp_path: Path, run: Run) -> None:
    path = config(tmp_path, write_csv(tmp_path / "a.csv", rows()), few_shot=3)
    assert run(etl.main, "--config", path).code == 0
    assert set(Counter(dataset.load(tmp_path / "out").read("train").labels).values()) == {3}
    message = run(etl.main, "--config", path, "--set", "few_shot=99").one_line_error()
    assert "fewer than few_shot: 99" in message


def test_labels_are_ordered_ignoring_case_and_frozen(data_dir: Path) -> None:
    schema = LabelSchema.load(data_dir / "labels.json")
    assert schema.names == ("card_lost", "Exchange", "top_up")
    data = dataset.load(data_dir)
    table = pq.read_table(data_dir / "train.parquet").to_pylist()
    assert all(schema.names[row["label"]] == row["label_text"] for row in table)
    assert data.manifest["labels_hash"] == schema.hash


def test_cleaning_normalises_and_lists_every_refused_row(tmp_path: Path, run: Run) -> None:
    source = tmp_path / "dirty.csv"
    good = "".join(f"{text},{label}\r\n" for text, label in rows()).encode()
    bad = (
        b"   ,top_up\r\n"  # 61: empty text
        b"no label,\r\n"  # 62
        b"broken \xff byte,top_up\r\n"  # 63
        b"nul \x00 here,top_up\r\n"  # 64
        + b"x"
        * 6000  # 65
        + b",top_up\r\n"
        b"too,many,cells\r\n"  # 66
    )
    kept = '"cafe\u0301\n  au   lait",top_up\r\n'.encode()
    source.write_bytes(b"\xef\xbb\xbftext,label\r\n" + good + bad + kept)
    result = run(etl.main, "--config", config(tmp_path, source))
    assert result.code == 0, result.err
    refused = report(tmp_path / "out")["refused"]
    reasons = {row["id"].split(":")[1]: row["reason"] for row in refused["rows"]}
    assert set(reasons) == {"61", "62", "63", "64", "65", "66"}
    assert "UTF-8" in reasons["63"]
    assert "NUL" in reasons["64"]
    assert "longer than 5,000" in reasons["65"]
    assert "6 rows were left out" in result.out
    assert ("caf\u00e9 au lait", "top_up") in all_rows(tmp_path / "out")
    message = run(
        etl.main, "--config", config(tmp_path, source), "--set", "bad_rows=fail"
    ).one_line_error()
    assert "6 unusable rows" in message
    assert "dirty.csv:61" in message


def test_a_lone_surrogate_in_json_is_refused(tmp_path: Path, run: Run) -> None:
    source = tmp_path / "a.jsonl"
    lines = [json.dumps({"text": a, "label": b}) for a, b in rows()] + [
        '{"text": "bad \\ud800", "label": "top_up"}'
    ]
    source.write_text("\n".join(lines))
    assert run(etl.main, "--config", config(tmp_path, source)).code == 0
    assert report(tmp_path / "out")["refused"]["reasons"] == {"text holds a lone surrogate": 1}


@pytest.mark.parametrize("policy", ["report", "drop", "fail"])
def test_leakage_is_reported_dropped_or_fatal(policy: str, tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    write_csv(folder / "train.csv", [*rows(), ("Where is, my CARD?", "card_lost")])
    test = [(f"{text} test {i}", label) for i, (text, label) in enumerate(rows(4))] + [
        ("where is my card", "card_lost")
    ]
    write_csv(folder / "test.csv", test)
    result = run(
        etl.main,
        "--config",
        config(tmp_path, folder, split="official", leakage=policy, val_split=0.2),
    )
    if policy == "fail":
        assert "stand in two splits" in result.one_line_error()
        assert not (tmp_path / "out").exists()
        return
    assert result.code == 0, result.err
    texts = [text for text, _ in all_rows(tmp_path / "out")]
    assert "where is my card" in texts  # the test split is never touched
    assert ("Where is, my CARD?" in texts) == (policy == "report")
    pairs = report(tmp_path / "out")["leakage"]["pairs"]
    assert sum(pair["same"] for name, pair in pairs.items() if name.startswith("test/")) == 1


def test_texts_with_two_labels_are_listed(tmp_path: Path, run: Run) -> None:
    source = write_csv(
        tmp_path / "a.csv", [*rows(), ("same thing", "top_up"), ("Same thing!", "Exchange")]
    )
    assert run(etl.main, "--config", config(tmp_path, source)).code == 0
    [entry] = report(tmp_path / "out")["two_labels"]
    assert entry["labels"] == ["Exchange", "top_up"]


def test_a_rare_intent_is_named(tmp_path: Path, run: Run) -> None:
    source = write_csv(tmp_path / "a.csv", [*rows(), ("help", "rare_one"), ("help me", "rare_one")])
    message = run(etl.main, "--config", config(tmp_path, source)).one_line_error()
    assert '"rare_one" (2)' in message
    assert not (tmp_path / "out").exists()


def test_an_empty_split_and_an_untrained_intent_are_refused(tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    write_csv(folder / "train.csv", rows(6))
    write_csv(folder / "val.csv", rows(6))
    write_csv(folder / "test.csv", rows(6))
    path = config(tmp_path, folder, split="official", leakage="drop")
    assert "the train split is empty" in run(etl.main, "--config", path).one_line_error()
    write_csv(folder / "test.csv", [("where is my parcel", "parcel")])
    message = run(etl.main, "--config", path, "--set", "leakage=report").one_line_error()
    assert 'intent "parcel" stands in test but not in train' in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("text,label\n", "fewer than two intents"),
        ("", "is empty"),
        ("question,answer\na,b\n", "none of the columns text"),
        ('text,label\n"never closed,top_up\n', "line"),
        ("text,label\na,x\nb,x\nc,x\n", "fewer than two intents"),
    ],
)
def test_unusable_files_get_one_line(content: str, expected: str, tmp_path: Path, run: Run) -> None:
    source = tmp_path / "a.csv"
    source.write_text(content)
    assert expected in run(etl.main, "--config", config(tmp_path, source)).one_line_error()
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.work").exists()


def test_other_unusable_sources_get_one_line(tmp_path: Path, run: Run) -> None:
    def error(source: object, **more: object) -> str:
        return run(etl.main, "--config", config(tmp_path, source, **more)).one_line_error()

    assert "does not exist" in error("missing.csv")
    assert "does not exist" in error("./missing")
    (tmp_path / "a.txt").write_text("x")
    assert "unknown ending" in error(tmp_path / "a.txt")
    (tmp_path / "utf16.csv").write_bytes("text,label\na,b\n".encode("utf-16"))
    assert "UTF-16" in error(tmp_path / "utf16.csv")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not really")
    assert "not a readable Parquet" in error(tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text('{"text": 1\n')
    assert "line 1 is not JSON" in error(tmp_path / "a.jsonl")
    (tmp_path / "empty").mkdir()
    assert "no train file" in error(tmp_path / "empty")
    good = write_csv(tmp_path / "good.csv", rows())
    assert 'no column "sentence"; it has text, label' in error(good, text_column="sentence")
    assert "no test split" in error(good, split="official")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("mine")
    assert "is no ETL output" in error(good)
    assert (tmp_path / "out" / "precious.txt").read_text() == "mine"


def test_changed_output_is_not_read_as_data(data_dir: Path) -> None:
    from bankintent.errors import DataError, LabelError

    table = pq.read_table(data_dir / "val.parquet")
    pq.write_table(table.slice(1), data_dir / "val.parquet")
    with pytest.raises(DataError, match="not the file that ETL wrote"):
        dataset.load(data_dir).read("val")
    text = (data_dir / "labels.json").read_text()
    (data_dir / "labels.json").write_text(text.replace("top_up", "topup"))
    with pytest.raises(LabelError, match="changed by hand"):
        dataset.load(data_dir)


@needs_datasets
def test_banking77_agrees_with_its_published_figures(tmp_path: Path, run: Run) -> None:
    result = run(etl.main, "--config", config(tmp_path, DATASETS / "banking77", split="official"))
    assert result.code == 0, result.err
    figures = report(tmp_path / "out")
    splits = figures["splits"]
    assert splits["train"]["rows"] + splits["val"]["rows"] == 10_003
    assert splits["test"]["rows"] == 3_080
    assert splits["test"]["rows_per_intent"] == {"min": 40, "median": 40.0, "p95": 40.0, "max": 40}
    assert splits["test"]["duplicates"] == 4
    pairs = figures["leakage"]["pairs"]
    assert (
        splits["train"]["duplicates"] + splits["val"]["duplicates"] + pairs["val/train"]["same"]
        == 31
    )
    assert pairs["test/train"]["same"] + pairs["test/val"]["same"] == 25
    assert len(figures["two_labels"]) == 2
    assert figures["refused"]["count"] == 0
    names = LabelSchema.load(tmp_path / "out" / "labels.json").names
    assert len(names) == 77
    assert names.index("Refund_not_showing_up") == 51
    assert names.index("card_arrival") == 11
    assert "reverted_card_payment?" in names


@needs_datasets
def test_clinc150_keeps_its_splits_and_sets_out_of_scope_aside(tmp_path: Path, run: Run) -> None:
    source = DATASETS / "clinc150" / "data_full.json"
    result = run(etl.main, "--config", config(tmp_path, source, split="official"))
    assert result.code == 0, result.err
    data = dataset.load(tmp_path / "out")
    assert {name: len(data.read(name)) for name in ("train", "val", "test")} == {
        "train": 15_000,
        "val": 3_000,
        "test": 4_500,
    }
    assert len(data.labels) == 150
    oos = pq.read_table(tmp_path / "out" / "out_of_scope.parquet")
    assert Counter(oos["split"].to_pylist()) == {"train": 100, "val": 100, "test": 1_000}


def test_extra_sentences_go_to_train_alone_and_only_where_they_are_new(
    tmp_path: Path, run: Run
) -> None:
    pairs = rows()
    path = config(tmp_path, write_csv(tmp_path / "a.csv", pairs))
    assert run(etl.main, "--config", path).code == 0
    before = dataset.load(tmp_path / "out")
    more = [
        ("where did my card go", "card_lost"),
        ("Where did my card go?", "card_lost"),
        ("fund it", "top_up"),
    ]
    extra = write_csv(tmp_path / "more.csv", [*more, *pairs[:5]])
    result = run(
        etl.main, "--config", path, "--set", f"extra_train={extra}", "--set", "output_dir=extended"
    )
    assert result.code == 0, result.err
    assert "2 rows of train come from extra_train" in result.out
    after = dataset.load(Path("extended"))
    assert after.labels.hash == before.labels.hash
    for split in ("val", "test"):
        assert after.read(split) == before.read(split)
    train = after.read("train")
    assert train.texts == [*before.read("train").texts, "where did my card go", "fund it"]
    assert train.ids[-1] == "extra/more.csv:3"

    strange = write_csv(tmp_path / "strange.csv", [("make me a coffee", "coffee")])
    message = run(etl.main, "--config", path, "--set", f"extra_train={strange}").one_line_error()
    assert 'does not have, first "coffee"' in message
