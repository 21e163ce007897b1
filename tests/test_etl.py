"""ETL from every kind of source to Parquet splits: what is kept, refused and repeated."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import DATASETS, Run, needs_datasets, write_csv, write_yaml
from tiny_models import rows

import etl
from bankintent import files
from bankintent.corpus import dataset
from bankintent.corpus.dataset import Dataset
from bankintent.errors import DataError, LabelError
from bankintent.labels import LabelSchema

SPLITS = ("train", "val", "test")

Pairs = list[tuple[str, str]]
"""(text, label) of each row."""


def write_config(source: object, **more: object) -> Path:
    """A data.yaml that reads `source` and writes to `out`."""
    return write_yaml(Path("data.yaml"), dataset_name=str(source), output_dir="out", **more)


def run_etl(run: Run, source: object, **more: object) -> Dataset:
    """The output of a run that must end well."""
    result = run(etl.main, "--config", write_config(source, **more))
    assert result.code == 0, result.err
    return dataset.load(Path("out"))


def run_error(run: Run, source: object, **more: object) -> str:
    """The error line of a run that must be refused."""
    return run(etl.main, "--config", write_config(source, **more)).one_line_error()


def read_pairs(data: Dataset) -> Pairs:
    """All rows of all splits."""
    pairs = []
    for split in SPLITS:
        part = data.read(split)
        for text, label_id in zip(part.texts, part.labels, strict=True):
            pairs.append((text, data.labels.names[label_id]))
    return pairs


def read_report(folder: Path = Path("out")) -> dict[str, Any]:
    return dict(json.loads((folder / "report.json").read_text()))


def hash_files(folder: Path) -> dict[str, str]:
    return {name: files.sha256(folder / name) for name in files.list_files(folder)}


def write_source(kind: str, pairs: Pairs) -> Path:
    """The same rows in one of the formats that ETL reads, under different names of the columns."""
    texts = [text for text, _ in pairs]
    labels = [label for _, label in pairs]

    if kind == "folder":
        folder = Path("source")
        folder.mkdir()
        write_csv(folder / "train.csv", pairs)
        return folder

    path = Path(f"source.{kind}")
    match kind:
        case "csv":
            write_csv(path, pairs)
        case "tsv":
            path.write_text(delimited(pairs, "\t"))
        case "semicolon":
            path = Path("source.csv")
            path.write_text(delimited(pairs, ";"))
        case "jsonl":
            records = [{"utterance": text, "category": label} for text, label in pairs]
            path.write_text("\n".join(map(json.dumps, records)))
        case "json":
            records = [{"Text": text, "Label": label} for text, label in pairs]
            path.write_text(json.dumps(records))
        case "parquet":
            pq.write_table(pa.table({"text": texts, "label": labels}), path)
    return path


def delimited(pairs: Pairs, delimiter: str) -> str:
    lines = [delimiter.join(pair) for pair in [("text", "intent"), *pairs]]
    return "\n".join(lines)


KINDS = ["csv", "tsv", "semicolon", "jsonl", "json", "parquet", "folder"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_format_gives_the_same_rows(kind: str, run: Run) -> None:
    pairs = rows()
    data = run_etl(run, write_source(kind, pairs))
    assert Counter(read_pairs(data)) == Counter(pairs)


def test_the_same_config_and_data_give_the_same_bytes(run: Run) -> None:
    source = write_csv(Path("a.csv"), rows())
    run_etl(run, source)
    first = hash_files(Path("out"))

    run_etl(run, source)
    assert hash_files(Path("out")) == first

    run_etl(run, source, seed=7)
    assert hash_files(Path("out"))["train.parquet"] != first["train.parquet"]


def test_parquet_has_the_fixed_schema(data_dir: Path) -> None:
    assert pq.read_schema(data_dir / "train.parquet").equals(dataset.SCHEMA)


def test_splits_are_stratified_disjoint_and_of_the_configured_size(run: Run) -> None:
    source = write_csv(Path("a.csv"), rows(40))
    data = run_etl(run, source, test_split=0.2, val_split=0.1)

    parts = {split: data.read(split) for split in SPLITS}
    rows_per_intent = {split: set(Counter(part.labels).values()) for split, part in parts.items()}
    assert rows_per_intent == {"train": {28}, "val": {4}, "test": {8}}

    ids: list[str] = []
    for part in parts.values():
        ids += part.ids
    assert len(ids) == len(set(ids)) == 120


def test_an_official_test_split_is_kept_whole(run: Run) -> None:
    folder = Path("source")
    folder.mkdir()
    write_csv(folder / "train.csv", rows(20))
    test = [(f"{text} test", label) for text, label in rows(5)]
    write_csv(folder / "test.csv", test)

    data = run_etl(run, folder, split="official")
    assert data.read("test").texts == [text for text, _ in test]
    assert len(data.read("train")) + len(data.read("val")) == 60


def test_an_intent_with_few_sentences_is_pointed_out(run: Run) -> None:
    few = [(f"a person please {i}", "agent") for i in range(3)]
    source = write_csv(Path("a.csv"), [*rows(), *few])
    result = run(etl.main, "--config", write_config(source))
    printed = " ".join(result.out.split())
    assert "1 intent has fewer than 5 training sentences" in printed
    assert "agent (1)" in printed


def test_intents_with_enough_sentences_are_not_pointed_out(run: Run) -> None:
    source = write_csv(Path("a.csv"), rows())
    result = run(etl.main, "--config", write_config(source))
    assert result.code == 0
    assert "fewer than 5" not in result.out


def test_few_shot_keeps_k_training_rows_of_each_intent(run: Run) -> None:
    source = write_csv(Path("a.csv"), rows())
    train = run_etl(run, source, few_shot=3).read("train")
    assert set(Counter(train.labels).values()) == {3}
    assert "fewer training rows than few_shot (99)" in run_error(run, source, few_shot=99)


def test_labels_are_ordered_ignoring_case_and_frozen(data_dir: Path) -> None:
    schema = LabelSchema.load(data_dir / "labels.json")
    assert schema.names == ("card_lost", "Exchange", "top_up")
    assert dataset.load(data_dir).manifest.labels_hash == schema.hash

    for row in pq.read_table(data_dir / "train.parquet").to_pylist():
        assert schema.names[row["label"]] == row["label_text"]


BAD_LINES = {
    "61": (b"   ,top_up", "empty text"),
    "62": (b"no label,", "empty label"),
    "63": (b"nul \x00 here,top_up", "text holds a NUL"),
    "64": (b"x" * 6000 + b",top_up", "text is longer than 5,000 characters"),
}
"""Lines of a CSV that are refused, and the reason, by their record number."""


@pytest.fixture
def dirty_csv() -> Path:
    """Sixty good rows, BAD_LINES, and one that only needs to be tidied."""
    lines = [b"\xef\xbb\xbftext,label"]
    for text, label in rows():
        lines.append(f"{text},{label}".encode())
    for line, _ in BAD_LINES.values():
        lines.append(line)
    lines.append('"cafe\u0301\n  au   lait",top_up'.encode())

    path = Path("dirty.csv")
    path.write_bytes(b"\r\n".join(lines) + b"\r\n")
    return path


def test_every_refused_row_is_listed_with_its_reason(dirty_csv: Path, run: Run) -> None:
    result = run(etl.main, "--config", write_config(dirty_csv, bad_rows="drop"))
    assert "4 rows were left out" in result.out

    refused = read_report()["refused"]["rows"]
    reasons = {row["id"].removeprefix("dirty.csv:"): row["reason"] for row in refused}
    assert list(reasons) == list(BAD_LINES)
    for number, (_, reason) in BAD_LINES.items():
        assert reason in reasons[number]


def test_cleaning_normalises_signs_and_blanks(dirty_csv: Path, run: Run) -> None:
    data = run_etl(run, dirty_csv, bad_rows="drop")
    assert ("caf\u00e9 au lait", "top_up") in read_pairs(data)


def test_bad_rows_fail_names_the_first(dirty_csv: Path, run: Run) -> None:
    message = run_error(run, dirty_csv, bad_rows="fail")
    assert "4 unusable rows" in message
    assert "dirty.csv line 62" in message


def test_a_lone_surrogate_in_json_is_refused(run: Run) -> None:
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows()]
    lines.append('{"text": "bad \\ud800", "label": "top_up"}')
    source = Path("a.jsonl")
    source.write_text("\n".join(lines))

    run_etl(run, source)
    assert read_report()["refused"]["reasons"] == {"text holds a lone surrogate": 1}


@pytest.fixture
def leaking_folder() -> Path:
    """One row of train is, but for signs and case, in test too."""
    folder = Path("source")
    folder.mkdir()
    write_csv(folder / "train.csv", [*rows(), ("Where is, my CARD?", "card_lost")])

    test = [(f"{text} test {i}", label) for i, (text, label) in enumerate(rows(4))]
    write_csv(folder / "test.csv", [*test, ("where is my card", "card_lost")])
    return folder


@pytest.mark.parametrize("policy", ["report", "drop"])
def test_leakage_is_reported_or_dropped(policy: str, leaking_folder: Path, run: Run) -> None:
    data = run_etl(run, leaking_folder, split="official", leakage=policy, val_split=0.2)

    assert "where is my card" in data.read("test").texts  # the test split is never touched
    texts = [text for text, _ in read_pairs(data)]
    assert ("Where is, my CARD?" in texts) == (policy == "report")

    pairs = read_report()["leakage"]["pairs"]
    assert pairs["test/train"]["same"] + pairs["test/val"]["same"] == 1


def test_leakage_can_be_fatal(leaking_folder: Path, run: Run) -> None:
    message = run_error(run, leaking_folder, split="official", leakage="fail", val_split=0.2)
    assert "stand in two splits" in message
    assert not Path("out").exists()


def test_texts_with_two_labels_are_listed(run: Run) -> None:
    contradiction = [("same thing", "top_up"), ("Same thing!", "Exchange")]
    run_etl(run, write_csv(Path("a.csv"), [*rows(), *contradiction]))
    [entry] = read_report()["two_labels"]
    assert entry["labels"] == ["Exchange", "top_up"]


def test_a_rare_intent_is_named(run: Run) -> None:
    source = write_csv(Path("a.csv"), [*rows(), ("help", "rare_one"), ("help me", "rare_one")])
    assert '"rare_one" (2)' in run_error(run, source)
    assert not Path("out").exists()


def test_an_empty_split_is_refused(run: Run) -> None:
    folder = Path("source")
    folder.mkdir()
    for split in SPLITS:
        write_csv(folder / f"{split}.csv", rows(6))

    message = run_error(run, folder, split="official", leakage="drop")
    assert "the train split is empty" in message
    assert not Path("out").exists()


def test_an_untrained_intent_is_refused(run: Run) -> None:
    folder = Path("source")
    folder.mkdir()
    write_csv(folder / "train.csv", rows(6))
    write_csv(folder / "val.csv", rows(6))
    write_csv(folder / "test.csv", [("where is my parcel", "parcel")])

    message = run_error(run, folder, split="official")
    assert '1 intent(s) stand in val or test but not in train: "parcel" (1)' in message
    assert not Path("out").exists()


UNUSABLE = [
    ("header.csv", b"text,label\n", "holds no rows"),
    ("empty.csv", b"", "is empty"),
    ("other.csv", b"question,answer\na,b\n", "none of the columns text"),
    ("open.csv", b'text,label\n"never closed,top_up\n', "line 2: unexpected end of data"),
    ("one.csv", b"text,label\na,x\nb,x\nc,x\n", "fewer than two intents"),
    ("a.txt", b"x", "unknown ending"),
    ("utf16.csv", "text,label\na,b\n".encode("utf-16-le"), "looks like utf-16-le"),
    ("cp1252.csv", "text,label\ngrüße,b\n".encode("cp1252"), "--set encoding=cp1252"),
    ("wide.csv", b"text,label\na,b\nc,d,e\n", "line 3 has 3 cells, the header 2"),
    ("a.parquet", b"PAR1 not really", "not a readable Parquet"),
    ("a.jsonl", b'{"text": 1\n', "line 1 is not JSON"),
    ("list.jsonl", b"[1]\n", "line 1 is not a JSON object"),
    ("none.json", b"[]", "it has no column with a name"),
    ("a.json", b'{"text": "a"}', "neither a list of objects nor CLINC150's layout"),
]


@pytest.mark.parametrize(("name", "content", "expected"), UNUSABLE)
def test_unusable_files_get_one_line(name: str, content: bytes, expected: str, run: Run) -> None:
    Path(name).write_bytes(content)
    assert expected in run_error(run, Path(name).absolute())
    assert not Path("out").exists()
    assert not Path("out.work").exists()


@pytest.mark.parametrize("source", ["missing.csv", "./missing"])
def test_a_missing_source_gets_one_line(source: str, run: Run) -> None:
    assert "does not exist" in run_error(run, source)


def test_a_folder_without_tables_gets_one_line(run: Run) -> None:
    Path("empty").mkdir()
    assert "no train file" in run_error(run, Path("empty").absolute())


def test_a_config_that_does_not_fit_the_source_gets_one_line(run: Run) -> None:
    source = write_csv(Path("a.csv"), rows())
    message = run_error(run, source, text_column="sentence")
    assert 'no column "sentence"; it has text, label' in message
    assert "no test split" in run_error(run, source, split="official")


@pytest.mark.parametrize("has_output", [False, True])
def test_a_file_that_etl_did_not_write_is_kept(has_output: bool, run: Run) -> None:
    source = write_csv(Path("a.csv"), rows())
    if has_output:
        run_etl(run, source)
    notes = Path("out/notes.txt")
    notes.parent.mkdir(exist_ok=True)
    notes.write_text("mine")
    before = hash_files(Path("out"))

    message = run_error(run, source, seed=7)
    assert "is no ETL output: it holds notes.txt" in message
    assert hash_files(Path("out")) == before


def test_the_rest_of_a_killed_run_is_cleared(run: Run) -> None:
    source = write_csv(Path("a.csv"), rows())
    work = Path("out.work")
    work.mkdir()
    (work / "train.parquet").write_bytes(b"half")
    (work / ".report.json.123.tmp").write_text("half")

    run_etl(run, source)
    assert not work.exists()
    assert files.list_files(Path("out")) == [
        "labels.json",
        "manifest.json",
        "report.json",
        "report.md",
        "test.parquet",
        "train.parquet",
        "val.parquet",
    ]


def test_a_file_of_others_in_the_work_folder_is_kept(run: Run) -> None:
    source = write_csv(Path("a.csv"), rows())
    notes = Path("out.work/notes.txt")
    notes.parent.mkdir()
    notes.write_text("mine")

    assert "is no ETL output: it holds notes.txt" in run_error(run, source)
    assert notes.read_text() == "mine"


def test_intents_that_differ_by_case_alone_have_a_fixed_order(run: Run) -> None:
    names = ["card", "Card", "cArd", "caRd", "carD", "CARD"]
    pairs = []
    for name in names:
        pairs += [(f"{name} of number {i}", name) for i in range(10)]
    run_etl(run, write_csv(Path("a.csv"), pairs))

    lines = Path("out/report.md").read_text().splitlines()
    table = lines[-len(names) :]
    assert [line.split(" | ")[0] for line in table] == [f"| {name}" for name in sorted(names)]


def test_changed_rows_are_not_read_as_data(data_dir: Path) -> None:
    table = pq.read_table(data_dir / "val.parquet")
    pq.write_table(table.slice(1), data_dir / "val.parquet")
    with pytest.raises(DataError, match="not the file that ETL wrote"):
        dataset.load(data_dir).read("val")


def test_changed_labels_are_not_read_as_data(data_dir: Path) -> None:
    path = data_dir / "labels.json"
    path.write_text(path.read_text().replace("top_up", "topup"))
    with pytest.raises(LabelError, match="changed by hand"):
        dataset.load(data_dir)


@pytest.mark.parametrize("content", ["[]", "{}", "not JSON"])
def test_a_manifest_that_is_none_gets_one_line(content: str, data_dir: Path) -> None:
    (data_dir / "manifest.json").write_text(content)
    with pytest.raises(DataError, match=r"manifest\.json is not what ETL writes"):
        dataset.load(data_dir)


@needs_datasets
def test_banking77_agrees_with_its_published_figures(run: Run) -> None:
    data = run_etl(run, DATASETS / "banking77", split="official")
    figures = read_report()

    splits = figures["splits"]
    assert splits["train"]["rows"] + splits["val"]["rows"] == 10_003
    assert splits["test"]["rows"] == 3_080
    assert splits["test"]["rows_per_intent"] == {"min": 40, "median": 40.0, "p95": 40.0, "max": 40}
    assert figures["refused"]["count"] == 0

    # The source has one train split: what it repeats may be divided between train and val.
    pairs = figures["leakage"]["pairs"]
    # Two more of train differ by a currency alone: a charge of 1 pound, dollar or euro.
    repeated = splits["train"]["duplicates"] + splits["val"]["duplicates"]
    assert repeated + pairs["val/train"]["same"] == 29
    assert splits["test"]["duplicates"] == 4
    assert pairs["test/train"]["same"] + pairs["test/val"]["same"] == 25
    assert len(figures["two_labels"]) == 2

    names = data.labels.names
    assert len(names) == 77
    assert names.index("Refund_not_showing_up") == 51
    assert names.index("card_arrival") == 11
    assert "reverted_card_payment?" in names


@pytest.mark.proof
@needs_datasets
def test_clinc150_keeps_its_splits_and_sets_out_of_scope_aside(run: Run) -> None:
    data = run_etl(run, DATASETS / "clinc150" / "data_full.json", split="official")
    sizes = [len(data.read(split)) for split in SPLITS]
    assert sizes == [15_000, 3_000, 4_500]
    assert len(data.labels) == 150

    out_of_scope = pq.read_table("out/out_of_scope.parquet")
    counts = Counter(out_of_scope["split"].to_pylist())
    assert counts == {"train": 100, "val": 100, "test": 1_000}


def test_extra_sentences_go_to_train_alone_and_only_where_they_are_new(run: Run) -> None:
    pairs = rows()
    source = write_csv(Path("a.csv"), pairs)
    before = run_etl(run, source)
    parts = {split: before.read(split) for split in SPLITS}

    more = [
        ("where did my card go", "card_lost"),
        ("Where did my card go?", "card_lost"),
        ("fund it", "top_up"),
    ]
    extra = write_csv(Path("more.csv"), [*more, *pairs[:5]])
    result = run(etl.main, "--config", write_config(source, extra_train=str(extra)))
    assert result.code == 0, result.err
    assert "2 rows of train come from extra_train" in result.out

    after = dataset.load(Path("out"))
    assert after.labels.hash == before.labels.hash
    assert after.read("val") == parts["val"]
    assert after.read("test") == parts["test"]

    train = after.read("train")
    assert train.texts == [*parts["train"].texts, "where did my card go", "fund it"]
    assert train.ids[-1] == "extra/more.csv:3"


def test_extra_sentences_of_another_intent_are_refused(run: Run) -> None:
    source = write_csv(Path("a.csv"), rows())
    strange = [("make me a coffee", "coffee"), ("a cup of tea", "tea"), ("more tea", "tea")]
    extra = write_csv(Path("more.csv"), strange)
    message = run_error(run, source, extra_train=str(extra))
    assert 'does not have: "coffee" (1), "tea" (2)' in message
