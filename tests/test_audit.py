"""The label audit: what it finds, the table and the page to decide, the patch and what ETL makes of it."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import REPOSITORY, BuildOnce, Result, Run, train_config, write_csv, write_yaml
from servers import running
from tiny_models import rows

import etl
from bankintent import __main__ as main
from bankintent import files
from bankintent.audit import (
    applying,
    findings,
    on_test,
    pairs,
    quick,
    review,
    suspects,
)
from bankintent.audit import run as audits
from bankintent.audit.answers import Answers, train_settings
from bankintent.audit.applying import AuditManifest, Rule
from bankintent.audit.page.app import create_app
from bankintent.audit.page.book import Book
from bankintent.audit.review import Decision, Neighbour, ReviewRow
from bankintent.audit.rows import AuditRows
from bankintent.config import AuditConfig, ServeConfig
from bankintent.corpus import dataset, patches, suspected_test
from bankintent.corpus.dataset import Dataset, SplitData
from bankintent.corpus.folds import Folds
from bankintent.errors import ConfigError, DataError, OutputError
from benchmarks import label_audit_tables

WRONG = "my card is gone number 1!"
"""Nearly a row of card_lost, and labelled top_up."""

FORMULA = "=1+1 is my card stolen"
TESTED = [
    ("where did my card go", "card_lost"),
    ("add funds please", "top_up"),
    ("rate?", "Exchange"),
]


@pytest.fixture
def audited(tiny_bert: Path, build_once: BuildOnce, tmp_path: Path) -> Path:
    """A folder with `source/`, `data.yaml`, ETL's `data/`, and an audit of it, `audit/`."""

    def build(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            Path("source").mkdir()
            planted = [(WRONG, "top_up"), (FORMULA, "top_up"), (FORMULA + "!", "card_lost")]
            write_csv(Path("source/train.csv"), rows(12) + planted)
            write_csv(Path("source/test.csv"), TESTED)
            config = write_yaml(Path("data.yaml"), dataset_name="source", output_dir="data")
            etl.main(config)
            audits.run(settings(tiny_bert))

    shutil.copytree(build_once("audited", build), tmp_path, dirs_exist_ok=True)
    return Path("audit")


def settings(model: Path, **more: Any) -> AuditConfig:
    values = {
        "data_dir": Path("data"),
        "output_dir": Path("audit"),
        "model_name": str(model),
        "max_length": 32,
        "cache_dir": Path("cache"),
        "folds": 3,
    }
    return AuditConfig(**(values | more))


def lines(folder: Path) -> list[dict[str, str]]:
    with (folder / "review.csv").open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def decide(folder: Path, decision: str, text: str = WRONG) -> None:
    """Fill in the table as a person does, with a spreadsheet."""
    table = lines(folder)
    [row] = [row for row in table if review.unguarded(row["text"]) == text]
    row["decision"] = decision
    write_table(folder, table)


def write_table(folder: Path, table: list[dict[str, str]], **dialect: Any) -> None:
    with (folder / "review.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]), **dialect)
        writer.writeheader()
        writer.writerows(table)


def listed_formula(folder: Path) -> str:
    """The one of the two rows with a formula that the audit lists."""
    [text] = [
        row["text"] for row in lines(folder) if "stolen" in row["text"] and "=" in row["text"]
    ]
    return review.unguarded(text)


def etl_with(run: Run, patch: Path | list[Path]) -> Result:
    config = yaml.safe_load(Path("data.yaml").read_text())
    listed = [str(path) for path in patch] if isinstance(patch, list) else str(patch)
    write_yaml(Path("patched.yaml"), **(config | {"patch": listed, "output_dir": "patched"}))
    return run(etl.main, "--config", "patched.yaml")


def read_labels(folder: str) -> dict[str, str]:
    labels: dict[str, str] = {}
    for split in ("train", "val", "test"):
        table = pq.read_table(f"{folder}/{split}.parquet")
        labels |= dict(zip(table["text"].to_pylist(), table["label_text"].to_pylist(), strict=True))
    return labels


# What is found


def clusters(per_intent: int = 40, intents: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Vectors around a centre for each intent, and labels."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(intents), per_intent)
    centres = rng.normal(size=(intents, 16)) * 3
    vectors = centres[labels] + rng.normal(size=(len(labels), 16))
    return vectors.astype(np.float32), labels


def answers_to(vectors: np.ndarray, labels: np.ndarray) -> Answers:
    folds = Folds((np.arange(len(labels)) % 5)[None, :])
    shares = quick.answer(vectors, labels, int(labels.max()) + 1, folds)
    return Answers(shares, folds.judged, quick.unit_length(vectors), "")


def test_wrong_labels_among_clusters_are_found() -> None:
    vectors, labels = clusters()
    wrong = np.array([3, 50, 90, 131])
    noisy = labels.copy()
    noisy[wrong] = (labels[wrong] + 1) % 4

    answers = answers_to(vectors, noisy)
    found = suspects.find_suspects(noisy, answers, "either")
    assert np.flatnonzero(found).tolist() == wrong.tolist()
    assert (answers.probabilities[wrong].argmax(axis=1) == labels[wrong]).all()
    assert (suspects.margins(noisy, answers)[wrong] > 0.5).all()


def test_clean_clusters_are_not_suspected() -> None:
    vectors, labels = clusters()
    assert not suspects.find_suspects(labels, answers_to(vectors, labels), "either").any()


def test_a_row_that_no_model_has_judged_is_not_suspected() -> None:
    vectors, labels = clusters()
    noisy = labels.copy()
    noisy[3] = 1
    answers = answers_to(vectors, noisy)
    judged = np.ones(len(labels), dtype=bool)
    judged[3] = False
    answers = replace(answers, judged=judged)
    assert not suspects.find_suspects(noisy, answers, "either").any()


def test_both_is_stricter_than_either() -> None:
    vectors, labels = clusters()
    rng = np.random.default_rng(1)
    noisy = np.where(rng.random(len(labels)) < 0.2, rng.integers(0, 4, len(labels)), labels)
    answers = answers_to(vectors, noisy)
    both = suspects.find_suspects(noisy, answers, "both")
    either = suspects.find_suspects(noisy, answers, "either")
    assert both.any()
    assert (either | both).tolist() == either.tolist()


def test_an_intent_that_no_row_has_is_never_suggested() -> None:
    vectors, labels = clusters()
    labels = np.where(labels == 2, 3, labels)
    shares = answers_to(vectors, labels).probabilities
    assert set(shares.argmax(axis=1)) == {0, 1, 3}


def test_the_audit_lists_contradictions_and_no_test_row(audited: Path) -> None:
    table = lines(audited)
    by_text = {row["text"]: row for row in table}
    assert by_text[WRONG]["given"] == "top_up"
    assert "near_duplicate" in by_text[WRONG]["kind"]
    assert "card_lost: my card is gone number 1 (" in by_text[WRONG]["neighbours"]
    assert not {text for text, _ in TESTED} & by_text.keys()
    assert {row["decision"] for row in table} == {""}
    assert list(table[0]) == list(review.COLUMNS)


def test_the_folder_says_what_was_audited(audited: Path) -> None:
    manifest = json.loads((audited / "manifest.json").read_text())
    assert manifest["data_hash"] == dataset.load(Path("data")).hash
    assert manifest["settings"]["folds"] == 3
    assert "cleanlab" in manifest["versions"]
    # A path of this machine is nobody else's business.
    assert str(Path.cwd().parent) not in json.dumps(manifest["settings"])

    report = json.loads((audited / "report.json").read_text())
    low, high = report["contradicting"]["interval"]
    share = report["contradicting"]["count"] / report["contradicting"]["of"]
    assert low < share < high
    assert "# Label audit of source" in (audited / "report.md").read_text()
    assert "Guideline (suggested)" in (audited / "pairs.md").read_text()


def words_as_vectors(audited_rows: AuditRows, _: AuditConfig) -> np.ndarray:
    """(rows, words): which words a sentence has, numbers left out."""
    texts = [set(text.split()) for text in audited_rows.rows.texts]
    words = sorted({word for text in texts for word in text if word.isalpha()})
    return np.array([[word in text for word in words] for text in texts], dtype=np.float32)


def test_suspected_test_rows_are_listed_and_stay_as_they_are(
    audited: Path, tiny_bert: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick, "read_vectors", words_as_vectors)
    clean = [(text.replace("number", "no"), label) for text, label in rows(6)]
    wrong = ("i lost my card no 77", "top_up")
    write_csv(Path("source/test.csv"), [*clean, wrong])
    assert run(etl.main, "--config", "data.yaml").code == 0
    before = files.sha256(Path("data/test.parquet"))
    audits.run(settings(tiny_bert, test=True), overwrite=True)

    path = Path("audit") / suspected_test.FILE
    content = suspected_test.read(path)
    assert content.rows == 19
    assert (patches.text_key(wrong[0]), "top_up") in {
        (row.text_sha256, row.given) for row in content.suspected
    }
    assert "card" not in path.read_text().replace("card_lost", "")
    assert files.sha256(Path("data/test.parquet")) == before
    assert path.name in json.loads(Path("audit/manifest.json").read_text())["files"]
    # No decision is asked for, so that no patch names it.
    assert wrong[0] not in {line["text"] for line in lines(Path("audit"))}


def test_one_training_answers_test_rows_in_any_regime(audited: Path, tiny_bert: Path) -> None:
    assert not (audited / suspected_test.FILE).exists()
    config = train_config(Path("train.yaml"), tiny_bert, Path("data"), Path("bundle"), epochs=1)
    training = train_settings(AuditConfig(train_config=config, regime="lora"))
    tested = on_test.read_rows(dataset.load(Path("data")))
    found = on_test.find(tested, AuditConfig(), training)
    assert found.rows == len(TESTED)
    assert found.method.startswith("lora on")


def small_rows(pairs_of: list[tuple[str, str]]) -> AuditRows:
    from bankintent.corpus.dataset import DataManifest, SourceConfig
    from bankintent.labels import LabelSchema

    schema = LabelSchema.from_names({label for _, label in pairs_of})
    manifest = DataManifest(SourceConfig("x"), {}, schema.hash, "", {})
    split = SplitData(
        [str(number) for number in range(len(pairs_of))],
        [text for text, _ in pairs_of],
        [schema.label2id[label] for _, label in pairs_of],
    )
    return AuditRows(Dataset(Path("x"), schema, manifest), split, ["train"] * len(split))


def flat_answers(found: AuditRows) -> Answers:
    count = len(found)
    shares = np.full((count, len(found.names)), 1 / len(found.names))
    return Answers(shares, np.ones(count, dtype=bool), np.eye(count, dtype=np.float32), "")


def test_names_that_differ_by_case_spaces_or_punctuation_are_pointed_out() -> None:
    names = ["top_up", "Top-up", "topup?", "refund", "C#", "C"]
    data = small_rows([(f"sentence {number}", name) for number, name in enumerate(names)])
    found = findings.alike.alike_names(data)
    assert [set(group) for group in found] == [{"top_up", "Top-up", "topup?"}]


def test_copies_of_a_text_with_one_label_contradict_nothing() -> None:
    data = small_rows([("same words here", "a")] * 3 + [("Same words here!", "b"), ("other", "b")])
    found = findings.alike.find_contradictions(data, flat_answers(data))
    assert [one.row for one in found] == [3]
    assert found[0].similarity == 1


def test_a_guideline_names_the_words_that_separate_two_intents() -> None:
    lost = [(f"my card was stolen {number}", "lost") for number in "abc"]
    late = [(f"my card has not arrived {number}", "late") for number in "abc"]
    data = small_rows(lost + late)
    [pair] = pairs.find_pairs(data, flat_answers(data), 1)
    assert (pair.first, pair.second) == ("late", "lost")
    assert "arrived" in " ".join(pair.first_terms)
    assert "stolen" in " ".join(pair.second_terms)
    assert 'lost where the sentence speaks of "stolen' in pair.guideline
    assert len(pair.sentences) == pairs.SENTENCES


def test_two_intents_without_words_of_their_own_get_a_guideline_all_the_same() -> None:
    data = small_rows([("alpha", "a"), ("beta", "b"), ("gamma", "b")])
    [pair] = pairs.find_pairs(data, flat_answers(data), 1)
    assert pair.guideline.startswith("a or b: no words tell the two apart")


# Settings


def test_a_regime_that_trains_needs_a_train_config() -> None:
    with pytest.raises(ValueError, match="name a train_config"):
        AuditConfig(regime="lora")
    with pytest.raises(ValueError, match="pooling is that of train_config"):
        AuditConfig(train_config=Path("train.yaml"), pooling="first")


def test_settings_that_do_not_go_with_folds_are_refused(audited: Path, tiny_bert: Path) -> None:
    path = train_config(
        Path("train.yaml"), tiny_bert, Path("data"), Path("unused"), regime="lora", few_shot=2
    )
    own = AuditConfig(data_dir=Path("data"), train_config=path, output_dir=Path("other"))
    with pytest.raises(ConfigError, match="few_shot does not go with an audit"):
        audits.run(own)
    assert not Path("other").exists()


@pytest.mark.proof
def test_any_regime_answers_through_a_train_config(audited: Path, tiny_bert: Path) -> None:
    path = train_config(
        Path("train.yaml"), tiny_bert, Path("data"), Path("unused"), regime="head-only", epochs=1
    )
    own = AuditConfig(data_dir=Path("data"), train_config=path, output_dir=Path("trained"), folds=2)
    found = audits.run(own)
    assert found.method.startswith("head-only on")
    assert WRONG in [row.text for row in found.review]
    assert not Path("unused").exists()


def test_an_audit_without_data_is_one_clear_line(run: Run) -> None:
    result = run(main.audit, "--set", "data_dir=nowhere")
    assert "holds no ETL output" in result.one_line_error()
    assert not Path("artifacts").exists()


def test_decisions_are_not_replaced_unasked(audited: Path, tiny_bert: Path) -> None:
    audits.run(settings(tiny_bert))
    decide(audited, "keep")
    with pytest.raises(OutputError, match="holds 1 decisions"):
        audits.run(settings(tiny_bert))
    audits.run(settings(tiny_bert), overwrite=True)
    assert {row["decision"] for row in lines(audited)} == {""}


def test_rows_that_a_person_kept_are_not_listed_again(audited: Path, tiny_bert: Path) -> None:
    decide(audited, "keep")
    patch = applying.apply_review(audited, Path("patches"))
    found = audits.run(settings(tiny_bert, output_dir=Path("again"), reviewed=[patch]))
    assert WRONG not in [row.text for row in found.review]
    assert found.reviewed == 1


def test_data_without_a_suspicion_make_an_empty_review(
    tiny_bert: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suspects, "find_label_issues", lambda labels, *_, **__: labels < 0)
    write_csv(Path("source.csv"), rows(8))
    run(
        etl.main,
        "--config",
        write_yaml(Path("d.yaml"), dataset_name="source.csv", output_dir="data"),
    )
    for _ in range(2):
        found = audits.run(settings(tiny_bert))
        assert found.review == []
    assert Book(Path("audit")).read() == {}
    assert "nothing is decided" in run(main.apply, "audit").one_line_error()


def test_the_published_figures_are_made_of_their_record() -> None:
    folder = REPOSITORY / "docs" / "results" / "trust"
    record = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
    assert label_audit_tables.render(record) == (folder / "audit.md").read_text(encoding="utf-8")
    for entry in record["noise"]["entries"]:
        assert entry["right"] / entry["wrong"] == entry["recall"] > 0.8
        assert entry["right"] / entry["found"] == entry["precision"] > 0.6


# The table


def test_no_cell_is_a_formula(audited: Path) -> None:
    with (audited / "review.csv").open(encoding="utf-8-sig", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert f"'{FORMULA}" in " ".join(cells)
    assert not [cell for cell in cells if cell.startswith(review.FORMULA)]


def rows_of(*names: str) -> list[ReviewRow]:
    near = [Neighbour("a sentence", names[-1], 0.9)]
    return [
        ReviewRow(
            f"t.csv:{n}", "train", f"text {n}", name, names[-1], 0.9, 0.05, "label_error", near
        )
        for n, name in enumerate(names)
    ]


def test_the_table_is_read_as_a_spreadsheet_saves_it(audited: Path) -> None:
    table = lines(audited)
    for row in table:
        row["decision"] = " Drop "
        row["note"] = "=Überprüft"
    table.reverse()
    write_table(audited, table[:1], delimiter=";", lineterminator="\r\n")

    known = review.read_rows(audited)
    decisions = review.read_review(audited, known, ["top_up", "card_lost", "Exchange"])
    assert decisions == {table[0]["id"]: Decision("drop", "=Überprüft")}


def test_rows_that_a_spreadsheet_has_emptied_are_none() -> None:
    listed = rows_of("plain")
    Path(review.REVIEW).write_text(f"id,decision\n,\n{listed[0].id},keep\n,\n")
    decided = review.read_review(Path("."), listed, ["plain"])
    assert decided == {listed[0].id: Decision("keep")}


def test_a_row_that_is_decided_twice_is_refused() -> None:
    listed = rows_of("plain")
    row_id = listed[0].id
    Path(review.REVIEW).write_text(f"id,decision\n{row_id},keep\n{row_id},drop\n")
    with pytest.raises(DataError, match="twice"):
        review.read_review(Path("."), listed, ["plain"])


def test_a_long_wrong_decision_is_not_repeated_as_a_whole() -> None:
    listed = rows_of("plain")
    Path(review.REVIEW).write_text(f"id,decision\n{listed[0].id},{'x' * 100_000}\n")
    with pytest.raises(DataError) as caught:
        review.read_review(Path("."), listed, ["plain"])
    assert len(str(caught.value)) < 500


def test_what_is_written_is_read_back() -> None:
    listed = rows_of("keep", "-minus", "intent:x", "plain")
    names = [row.given for row in listed]
    decided = {
        listed[0].id: Decision("intent:keep", "- a note\nof two lines"),
        listed[1].id: Decision("-minus", ""),
        listed[2].id: Decision("intent:intent:x", '"quoted", and more'),
        listed[3].id: Decision("", "only a note"),
    }
    review.write_review(Path("."), listed, decided)
    assert review.read_review(Path("."), listed, names) == decided


@pytest.mark.parametrize(
    ("decision", "intent"),
    [
        ("suggested", "plain"),
        ("intent:keep", "keep"),
        ("intent:intent:x", "intent:x"),
        ("keep", None),
        ("drop", None),
        ("skip", None),
        ("", None),
    ],
)
def test_a_decision_gives_an_intent(decision: str, intent: str | None) -> None:
    names = {"keep", "intent:x", "plain"}
    row = rows_of("keep", "plain")[0]
    assert review.chosen_intent(review.settle(decision, names, row.id), row) == intent


def test_a_decision_that_is_none_is_one_clear_line(audited: Path, run: Run) -> None:
    decide(audited, "card lots")
    error = run(main.apply, audited).one_line_error()
    assert 'the decision "card lots" on the row' in error
    assert not Path("patches").exists()


def test_a_row_of_another_audit_is_refused(audited: Path) -> None:
    table = lines(audited)
    table[0]["id"] = "other.csv:1"
    write_table(audited, table)
    with pytest.raises(DataError, match="not of this audit"):
        applying.apply_review(audited, Path("patches"))


# The patch


def test_a_patch_changes_train_and_val_and_never_test(audited: Path, run: Run) -> None:
    decide(audited, "card_lost")
    decide(audited, "drop", listed_formula(audited))
    result = run(main.apply, audited)
    assert result.code == 0, result.err
    [patch] = Path("patches").glob("0001-*.json")
    assert f"patch: {patch}" in result.out
    content = patch.read_text()
    # Hashes of the texts, not the texts.
    assert "my card" not in content

    done = etl_with(run, patch)
    assert done.code == 0, done.err
    labels = read_labels("patched")
    assert labels[WRONG] == "card_lost"
    before = read_labels("data")
    changed = {text for text in before if before[text] != labels.get(text)}
    dropped = {text for text in before if text not in labels}
    assert changed - dropped == {WRONG}
    assert dropped
    assert all("stolen" in text for text in dropped)

    same = ("test.parquet", "labels.json")
    for name in same:
        assert Path("data", name).read_bytes() == Path("patched", name).read_bytes()
    manifest = json.loads(Path("patched/manifest.json").read_text())
    [record] = manifest["patches"]
    assert record["sha256"] == files.sha256(patch)
    assert (record["relabelled"], record["dropped"]) == (1, len(dropped))
    assert manifest["data_hash"] != dataset.load(Path("data")).hash
    assert "1 rows relabelled" in Path("patched/report.md").read_text()


def patch_of(*changes: patches.Change, **more: Any) -> Path:
    made = patches.Patch(1, patches.KIND, 0, False, "", {}, {}, list(changes))
    path, _ = applying.write_patch(replace(made, **more), Path("patches"))
    return path


def change(text: str, given: str, new: str | None) -> patches.Change:
    return patches.Change("some.csv:1", patches.text_key(text), given, new)


def test_rows_of_test_and_rows_that_are_gone_are_counted(audited: Path, run: Run) -> None:
    text, label = TESTED[0]
    path = patch_of(
        change(text, label, "top_up"),
        change(WRONG, "card_lost", None),
        change("gone", "top_up", None),
    )
    result = etl_with(run, path)
    assert "1 test rows that it names are left alone" in result.out
    assert "2 of its rows no longer stand in the data" in result.out
    # Another label than the patch says: it is not the row that was looked at.
    assert read_labels("patched") == read_labels("data")
    assert dataset.load(Path("patched")).hash == dataset.load(Path("data")).hash


def test_patches_are_applied_in_order(audited: Path, run: Run) -> None:
    first = patch_of(change(WRONG, "top_up", "card_lost"))
    second = patch_of(change(WRONG, "card_lost", "Exchange"))
    assert [first.name[:5], second.name[:5]] == ["0001-", "0002-"]
    etl_with(run, [first, second])
    assert read_labels("patched")[WRONG] == "Exchange"
    etl_with(run, [second, first])
    assert read_labels("patched")[WRONG] == "card_lost"


def test_the_same_patch_is_not_written_twice(audited: Path) -> None:
    decide(audited, "card_lost")
    first = applying.apply_review(audited, Path("patches"))
    assert applying.apply_review(audited, Path("patches")) == first
    decide(audited, "drop")
    assert applying.apply_review(audited, Path("patches")).name.startswith("0002-")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{}", "is no patch of labels"),
        ("not json", "is no patch of labels"),
        ('{"format": "1"}', "is no patch of labels"),
    ],
)
def test_a_file_that_is_no_patch_is_one_clear_line(
    audited: Path, run: Run, content: str, expected: str
) -> None:
    Path("p.json").write_text(content)
    assert expected in etl_with(run, Path("p.json")).one_line_error()
    assert not Path("patched").exists()


def test_a_patch_of_a_later_form_or_an_unknown_intent_is_refused(audited: Path, run: Run) -> None:
    later = patch_of(change("x", "top_up", None), format=2)
    assert "has the form 2" in etl_with(run, later).one_line_error()
    unknown = patch_of(change(WRONG, "top_up", "no_such"))
    assert "no intents of this data: no_such" in etl_with(run, unknown).one_line_error()
    twice = patch_of(change(WRONG, "top_up", "card_lost"), change(WRONG, "top_up", None))
    assert "decides twice" in etl_with(run, twice).one_line_error()
    assert "cannot be read" in etl_with(run, Path("missing.json")).one_line_error()


def test_an_intent_that_a_patch_empties_is_refused(audited: Path, run: Run) -> None:
    texts = [text for text, label in read_labels("data").items() if label == "Exchange"]
    path = patch_of(*[change(text, "Exchange", None) for text in texts])
    assert "have no rows left in train" in etl_with(run, path).one_line_error()


def test_the_folds_of_a_cross_validation_follow_a_patch(audited: Path, run: Run) -> None:
    path = patch_of(change(WRONG, "top_up", None))
    write_yaml(
        Path("cross.yaml"),
        dataset_name="source/train.csv",
        split="cross",
        folds=3,
        patch=str(path),
        output_dir="cross",
    )
    assert run(etl.main, "--config", "cross.yaml").code == 0
    data = dataset.load(Path("cross"))
    train = data.read("train")
    assert WRONG not in train.texts
    assert data.read_folds().assignment.shape == (1, len(train))


def test_nothing_decided_makes_no_patch(audited: Path, run: Run) -> None:
    assert "nothing is decided" in run(main.apply, audited).one_line_error()
    decide(audited, "skip")
    assert "nothing is decided" in run(main.apply, audited).one_line_error()
    assert "is not what an audit writes" in run(main.apply, "data").one_line_error()
    assert "holds no audit" in run(main.apply, "source").one_line_error()


def test_without_a_person_only_sure_suggestions_with_agreeing_neighbours_are_taken() -> None:
    manifest = AuditManifest("a", "hash", ["x", "y"], {})
    agreeing = [Neighbour("s", "y", 0.9)] * 4 + [Neighbour("s", "x", 0.9)]
    divided = [Neighbour("s", "y", 0.9)] * 3 + [Neighbour("s", "x", 0.9)] * 2
    sure = replace(rows_of("x", "y")[0], confidence=0.9, neighbours=agreeing)
    listed = [
        sure,
        replace(sure, id="unsure", confidence=0.89),
        replace(sure, id="divided", neighbours=divided),
        replace(sure, id="alone", neighbours=[]),
    ]
    patch = applying.from_rule(manifest, listed, Rule())
    assert [one.id for one in patch.changes] == [sure.id]
    assert patch.automatic
    assert patch.audit["rule"] == {"confidence": 0.9, "agreement": 0.8}
    assert patch.made_from == {"listed": 4, "relabelled": 1, "undecided": 3}


def test_an_automatic_patch_is_marked_in_the_report(audited: Path, run: Run) -> None:
    path = patch_of(change(WRONG, "top_up", "card_lost"), automatic=True)
    assert "made without a person" in etl_with(run, path).out
    refused = run(main.apply, audited, "--automatic", "--confidence", "1")
    assert "no suggestion in" in refused.one_line_error()


# The page


@pytest.fixture
def ask(audited: Path) -> Callable[..., httpx.Response]:
    """Ask the page of the audit, as a browser on this machine does."""
    import asyncio

    app = create_app(Book(audited), ServeConfig(host="127.0.0.1"))

    def send(method: str, path: str, **options: Any) -> httpx.Response:
        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://127.0.0.1"
            ) as client:
                return await client.request(method, path, **options)

        return asyncio.run(call())

    return send


def test_a_decision_is_on_disk_when_it_is_confirmed(
    audited: Path, ask: Callable[..., httpx.Response]
) -> None:
    known = ask("GET", "/rows").json()
    row = next(row for row in known["rows"] if row["text"] == WRONG)
    body = {"id": row["id"], "decision": "card_lost", "note": "=looked at"}
    assert ask("POST", "/decide", json=body).json()["decisions"] == {
        row["id"]: {"decision": "card_lost", "note": "=looked at"}
    }
    [line] = [line for line in lines(audited) if line["id"] == row["id"]]
    assert (line["decision"], line["note"]) == ("card_lost", "'=looked at")

    # After a restart it is still there; undo takes it back.
    assert Book(audited).read()[row["id"]].decision == "card_lost"
    ask("POST", "/decide", json={"id": row["id"], "decision": "", "note": ""})
    assert Book(audited).read() == {}


def test_what_a_spreadsheet_saved_meanwhile_stays(
    audited: Path, ask: Callable[..., httpx.Response]
) -> None:
    known = ask("GET", "/rows").json()["rows"]
    decide(audited, "drop")
    other = next(row for row in known if row["text"] != WRONG)
    ask("POST", "/decide", json={"id": other["id"], "decision": "keep"})
    assert sorted(one.decision for one in Book(audited).read().values()) == ["drop", "keep"]


def test_the_page_refuses_what_is_no_decision(
    audited: Path, ask: Callable[..., httpx.Response]
) -> None:
    before = (audited / "review.csv").read_bytes()
    row_id = ask("GET", "/rows").json()["rows"][0]["id"]
    assert ask("POST", "/decide", json={"id": row_id, "decision": "no_such"}).status_code == 409
    assert ask("POST", "/decide", json={"id": "other", "decision": "keep"}).status_code == 409
    assert ask("POST", "/decide", json={"id": row_id}).status_code == 422
    assert ask("POST", "/decide", content=b"x" * 30_000).status_code == 413
    (audited / "review.csv").write_text("id;x\n")
    assert ask("GET", "/rows").status_code == 409
    (audited / "review.csv").write_bytes(before)


def test_the_page_is_for_this_machine_and_loads_nothing_from_others(
    ask: Callable[..., httpx.Response],
) -> None:
    page = ask("GET", "/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == "no-store"
    assert "http" not in page.text.replace("http-equiv", "")
    for name in ("review.js", "review.css", "icon.svg"):
        assert ask("GET", f"/static/{name}").status_code == 200

    assert ask("GET", "/rows", headers={"host": "evil.example"}).status_code == 403
    foreign = {"origin": "http://evil.example"}
    body = {"id": "x", "decision": "keep"}
    assert ask("POST", "/decide", json=body, headers=foreign).status_code == 403
    for path in ("/docs", "/openapi.json", "/rows.json", "/static/../app.py"):
        assert ask("GET", path).status_code == 404


@pytest.mark.proof
def test_rows_are_decided_with_the_keyboard(audited: Path) -> None:
    chromium = Path("/usr/bin/chromium")
    if not chromium.exists():
        pytest.skip("no browser: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright")
    listed = review.read_rows(audited)
    hostile = replace(listed[0], text="<img src=x onerror=\"document.title='run'\">")
    review.write_rows(audited, [hostile, *listed[1:]])
    review.write_review(audited, listed, {})

    import sys

    command = [sys.executable, "-m", "bankintent", "audit", "review", str(audited.resolve())]
    options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
    serving = running([*command, "--port", "{port}"], Path.cwd(), ready="/")
    with serving as server, playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(chromium), args=options)
        page = browser.new_page(viewport={"width": 390, "height": 844})
        outside: list[str] = []
        page.on("request", lambda sent: outside.append(sent.url))
        page.goto(server.url)
        page.get_by_text(hostile.text).wait_for()
        page.keyboard.press("o")
        page.keyboard.type("exch")
        page.keyboard.press("Enter")
        page.get_by_text(f"1 of {len(listed)} decided").wait_for()
        page.keyboard.press("k")
        page.get_by_text(f"2 of {len(listed)} decided").wait_for()
        page.keyboard.press("u")
        page.get_by_text(f"1 of {len(listed)} decided").wait_for()
        page.reload()
        page.get_by_text(f"1 of {len(listed)} decided").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.title() != "run"
        assert all(url.startswith(server.url) for url in outside)
        browser.close()
    assert review.read_review(audited, listed, ["Exchange", "top_up", "card_lost"]) == {
        listed[0].id: Decision("Exchange")
    }
