"""Which division a source gets, rows that keep their place, rare intents, and what moved since the former output."""

import json
import random
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import DATASETS, Run, needs_datasets, train_config, write_csv, write_yaml
from tiny_models import rows as tiny_rows

import baseline
import etl
import eval as evaluate
import multiregime
from bankintent.config import DataConfig
from bankintent.corpus import cleaning, dataset, leaks, near, sources, stable_split
from bankintent.corpus.cleaning import Example
from bankintent.corpus.splits import Splits, pool
from bankintent.labels import LabelSchema

SPLITS = ("train", "val", "test")

Pairs = list[tuple[str, str]]
"""(text, label) of each row."""

WORDS = """
anchor biscuit candle dragon ember falcon garden hammer island jungle kettle ladder magnet
needle orchid pepper quarry ribbon saddle timber umbrella velvet walnut yonder zipper
""".split()  # noqa: SIM905


def sentence(rng: random.Random) -> str:
    """Six words: no two of them are nearly the same."""
    return " ".join(rng.sample(WORDS, 6))


def make_rows(per_intent: int, intents: int = 4, seed: int = 0) -> list[Example]:
    rng = random.Random(seed)
    rows = []
    for intent in range(intents):
        for number in range(per_intent):
            rows.append(Example(f"{intent}:{number}", sentence(rng), f"intent {intent}"))
    return rows


def place(rows: list[Example], **settings: Any) -> Splits:
    config = DataConfig(dataset_name="x", split="stable", **settings)
    return stable_split.place({"all": rows}, config, set())


def splits_by_id(splits: Splits) -> dict[str, str]:
    places = {}
    for name, part in splits.items():
        for row in part:
            places[row.id] = name
    return places


def moves_between(before: Splits, after: Splits) -> Counter[str]:
    """The rows of both that changed their split, by `<from>/<to>`."""
    places = splits_by_id(after)
    moved: Counter[str] = Counter()
    for identifier, split in splits_by_id(before).items():
        if places.get(identifier, split) != split:
            moved[f"{split}/{places[identifier]}"] += 1
    return moved


def run_etl(run: Run, source: object, **more: object) -> str:
    """The printed text of a run that must end well."""
    config = write_yaml(Path("data.yaml"), dataset_name=str(source), output_dir="out", **more)
    result = run(etl.main, "--config", config)
    assert result.code == 0, result.err
    return " ".join(result.out.split())


def run_error(run: Run, source: object, **more: object) -> str:
    config = write_yaml(Path("data.yaml"), dataset_name=str(source), output_dir="out", **more)
    message = run(etl.main, "--config", config).one_line_error()
    assert not Path("out").exists()
    return message


def read_labels(split: str) -> Counter[str]:
    table = pq.read_table(f"out/{split}.parquet")
    return Counter(table["label_text"].to_pylist())


def read_texts(split: str) -> list[str]:
    return list(pq.read_table(f"out/{split}.parquet")["text"].to_pylist())


def read_json(name: str) -> dict[str, Any]:
    return dict(json.loads(Path("out", name).read_text()))


def write_folder(**parts: Pairs) -> Path:
    folder = Path("source")
    folder.mkdir()
    for name, pairs in parts.items():
        write_csv(folder / f"{name}.csv", pairs)
    return folder


def marked(word: str, per_intent: int) -> Pairs:
    """Rows that no other word's rows are like."""
    return [(f"{word} {word} {text} {word}", label) for text, label in tiny_rows(per_intent)]


STRATIFIED = {
    "train": [6, 9, 15, 19, 25, 29],
    "val": [1, 17, 26],
    "test": [3, 8, 13, 14, 23, 27],
}
OFFICIAL = {"train": [1, 6, 17, 19, 26, 28], "val": [3, 8, 13, 14, 23, 27]}
"""Numbers of the rows that the seed 6 draws, by split."""


# Which division


@pytest.fixture
def own_splits() -> Path:
    return write_folder(train=marked("old", 10), valid=marked("mid", 3), test=marked("new", 4))


def test_a_source_keeps_its_own_splits(own_splits: Path, run: Run) -> None:
    out = run_etl(run, own_splits)
    assert read_texts("test") == [text for text, _ in marked("new", 4)]
    assert read_texts("val") == [text for text, _ in marked("mid", 3)]
    assert "own test and validation splits are kept; --set split=stable draws anew" in out
    assert read_json("report.json")["split"] == read_json("manifest.json")["split"] == "official"


def test_without_a_validation_split_only_train_gives_rows_to_it(run: Run) -> None:
    folder = write_folder(train=marked("old", 10), test=marked("new", 4))
    out = run_etl(run, folder, val_split=0.2)
    assert read_texts("test") == [text for text, _ in marked("new", 4)]
    assert set(read_labels("val").values()) == {2}
    assert "own test split is kept, and validation is 20 % of each intent's training rows" in out


@pytest.mark.parametrize(
    ("settings", "split", "reason"),
    [
        ({"test_split": 0.1}, "stable", "because test_split is given (--set split=official keeps"),
        ({"split": "stable"}, "stable", "the source's own train and val and test rows are pooled"),
        ({"split": "stratified"}, "stratified", "own train and val and test rows are pooled"),
        ({"split": "official", "test_split": 0.1}, "official", "own test and validation splits"),
    ],
)
def test_a_new_draw_must_be_asked_for_and_is_said(
    settings: dict[str, object], split: str, reason: str, own_splits: Path, run: Run
) -> None:
    out = run_etl(run, own_splits, **settings)
    assert f"Split: {split}" in out
    assert reason in out
    assert read_json("manifest.json")["split"] == split


def test_a_source_without_a_test_split_is_divided_stably(run: Run) -> None:
    out = run_etl(run, write_csv(Path("a.csv"), tiny_rows(20)))
    assert "Split: stable, 80 % train, 10 % val, 10 % test of each intent" in out
    assert "pooled" not in out
    assert set(read_labels("test").values()) == {2}


def test_train_and_val_without_test_are_pooled_and_that_is_said(run: Run) -> None:
    out = run_etl(run, write_folder(train=marked("old", 20), dev=marked("mid", 5)))
    assert "Split: stable" in out
    assert "the source's own train and val rows are pooled" in out


def test_the_stratified_draw_is_the_one_of_the_records(run: Run) -> None:
    """Records in docs/results can only be repeated while these rows are drawn."""
    source = write_csv(Path("a.csv"), tiny_rows(10))
    run_etl(run, source, split="stratified", test_split=0.2, val_split=0.1, few_shot=2)
    ids = {
        split: [
            int(name.removeprefix("a.csv:"))
            for name in pq.read_table(f"out/{split}.parquet")["id"].to_pylist()
        ]
        for split in SPLITS
    }
    assert ids == STRATIFIED


def test_the_official_draw_of_validation_is_the_one_of_the_records(run: Run) -> None:
    folder = write_folder(train=tiny_rows(10), test=marked("new", 4))
    run_etl(run, folder, split="official", val_split=0.2, few_shot=2)
    ids = {
        split: [
            int(name.removeprefix("train.csv:"))
            for name in pq.read_table(f"out/{split}.parquet")["id"].to_pylist()
        ]
        for split in ("train", "val")
    }
    assert ids == OFFICIAL


# Rows that keep their place


@pytest.mark.parametrize(("per_intent", "share"), [(50, 0.1), (37, 0.2), (10, 0.1), (200, 0.02)])
def test_every_intent_has_its_share_within_rounding(per_intent: int, share: float) -> None:
    splits = place(make_rows(per_intent), test_split=share, val_split=0.1)
    for name, expected in (("test", share * per_intent), ("val", 0.1 * per_intent)):
        counts = Counter(row.label_text for row in splits[name])
        assert len(counts) == 4
        for count in counts.values():
            assert abs(count - expected) <= 1, name
    assert len(pool(splits)) == 4 * per_intent


@pytest.mark.parametrize("per_intent", [3, 4, 5, 9])
def test_a_small_intent_stands_in_every_split(per_intent: int) -> None:
    splits = place(make_rows(per_intent))
    for name in SPLITS:
        assert len({row.label_text for row in splits[name]}) == 4, name


def test_the_order_of_the_source_moves_no_row() -> None:
    rows = make_rows(40)
    shuffled = random.Random(1).sample(rows, len(rows))
    assert splits_by_id(place(rows)) == splits_by_id(place(shuffled))


def test_another_seed_draws_other_rows() -> None:
    rows = make_rows(40)
    before = {row.id for row in place(rows, seed=1)["test"]}
    after = {row.id for row in place(rows, seed=2)["test"]}
    assert len(before & after) < len(before) / 2


def corrected(rows: list[Example], rng: random.Random) -> list[Example]:
    """Ten rows have another intent."""
    chosen = set(rng.sample(range(len(rows)), 10))
    changed = []
    for index, row in enumerate(rows):
        label = f"intent {rng.randrange(4)}" if index in chosen else row.label_text
        changed.append(replace(row, label_text=label))
    return changed


def extended(rows: list[Example], rng: random.Random) -> list[Example]:
    more = [Example(f"new:{i}", sentence(rng), f"intent {rng.randrange(4)}") for i in range(20)]
    return rng.sample([*rows, *more], len(rows) + 20)


def shortened(rows: list[Example], rng: random.Random) -> list[Example]:
    return rng.sample(rows, len(rows) - 20)


@pytest.mark.parametrize("edit", [corrected, extended, shortened])
@pytest.mark.parametrize("seed", range(5))
def test_edits_move_only_rows_at_the_borders(edit: Any, seed: int) -> None:
    rows = make_rows(100, seed=seed)
    edited = edit(rows, random.Random(seed))
    moved = moves_between(place(rows), place(edited))
    # Two borders in each of four intents, at which some five rows come or go.
    assert moved.total() <= 20
    assert moved["train/test"] == moved["test/train"] == 0


def test_a_single_edit_makes_no_row_of_train_one_of_test() -> None:
    rows = make_rows(30)
    before = place(rows)
    rng = random.Random(0)
    total: Counter[str] = Counter()
    for index in range(0, len(rows), 6):
        without = rows[:index] + rows[index + 1 :]
        other = replace(rows[index], label_text=f"intent {rng.randrange(4)}")
        more = Example("new", sentence(rng), "intent 1")
        for edited in (without, [*without, other], [*rows, more]):
            moved = moves_between(before, place(edited))
            assert moved.total() <= 5
            total += moved
    assert total["train/test"] == 0
    # The borders do move: the count above can fail.
    assert total["train/val"] > 0


def test_a_hash_is_as_fair_as_a_draw() -> None:
    """Over seeds, every row is tested as often as its share says, whatever its length or its words."""
    rows = make_rows(20)
    tested: Counter[str] = Counter()
    seeds = 150
    for seed in range(seeds):
        tested.update(row.id for row in place(rows, seed=seed)["test"])

    expected = 0.1 * seeds
    chi_square = sum((tested[row.id] - expected) ** 2 / (expected * 0.9) for row in rows)
    # 80 rows, 4 of whose counts follow from the others: 76 degrees of freedom, 99.9 % below 120.
    assert 40 < chi_square < 120


def test_rows_with_the_same_or_nearly_the_same_text_stand_together() -> None:
    rows = make_rows(60)
    rng = random.Random(3)
    families: dict[str, set[str]] = {}
    for number in range(24):
        text = " ".join(rng.sample(WORDS, 9))
        # The last is of another intent.
        for copy, (variant, intent) in enumerate([(text, 0), (f"{text}!", 0), (f"a {text}", 1)]):
            row = Example(f"copy:{number}:{copy}", variant, f"intent {intent}")
            rows.append(row)
            families.setdefault(text, set()).add(row.id)

    places = splits_by_id(place(rows))
    used = set()
    for ids in families.values():
        splits = {places[identifier] for identifier in ids}
        assert len(splits) == 1
        used |= splits
    assert used >= {"train", "test"}


def test_near_rows_that_are_most_of_an_intent_are_divided_nevertheless() -> None:
    rows = make_rows(20, intents=1)
    rows += [Example(f"t:{i}", f"please top up my account by {i}", "top up") for i in range(40)]
    rows += [Example(f"s:{i}", "the very same words", "same") for i in range(30)]
    splits = place(rows)
    for name, count in (("test", 4), ("val", 4)):
        counts = Counter(row.label_text for row in splits[name])
        assert abs(counts["top up"] - count) <= 1
        assert abs(counts["same"] - 3) <= 1


def test_a_large_family_is_trained_on_where_enough_stands_beside_it() -> None:
    rows = make_rows(40, intents=2)
    copies = [Example(f"t:{i}", f"please top up my account by {i}", "intent 0") for i in range(20)]
    splits = place([*rows, *copies])
    assert {split for name, split in splits_by_id(splits).items() if name[0] == "t"} == {"train"}
    assert Counter(row.label_text for row in splits["test"]) == {"intent 0": 6, "intent 1": 4}


def test_few_shot_of_a_stable_split_keeps_its_rows_too() -> None:
    rows = make_rows(100)
    before = place(rows, few_shot=10)
    assert set(Counter(row.label_text for row in before["train"]).values()) == {10}

    more = [replace(row, id=f"new {row.id}") for row in make_rows(1, seed=9)]
    after = place([*rows[1:], *more], few_shot=10)
    shared = {row.id for row in before["train"]} & {row.id for row in after["train"]}
    assert len(shared) >= 38


@pytest.mark.proof
@needs_datasets
def test_ten_corrected_labels_of_banking77_move_hardly_a_row() -> None:
    config = DataConfig(dataset_name=str(DATASETS / "banking77"), split="stable")
    rows = pool(cleaning.clean_all(sources.read_all(config), config).dataset)
    before = place(rows)
    rng = random.Random(0)
    names = sorted({row.label_text for row in rows})
    chosen = set(rng.sample(range(len(rows)), 10))
    edited = []
    for index, row in enumerate(rows):
        label = rng.choice(names) if index in chosen else row.label_text
        edited.append(replace(row, label_text=label))

    moved = moves_between(before, place(rng.sample(edited, len(edited))))
    assert moved.total() <= 30
    assert moved["train/test"] <= 1
    # Near rows of one text stand together, so that there is nothing to drop.
    assert sum(len(pair.rows) for pair in leaks.find_leaks(before)) <= 5


# Nearly the same


def near_texts(texts: list[str]) -> list[tuple[int, int, float]]:
    """(text, later text, similarity) of all near pairs, as indices, in order."""
    found: list[tuple[int, int, float]] = []
    for pairs in near.near_pairs(texts):
        columns = (pairs.first.tolist(), pairs.second.tolist(), pairs.similarity.tolist())
        found += list(zip(*columns, strict=True))
    return sorted(found)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (
            "i sent $ 5 to my friend in london last week",
            "i sent € 5 to my friend in london last week",
        ),
        ("this is what i think of your service 👍", "this is what i think of your service 👎"),
        (
            "how do i write to a file in c++ on my machine",
            "how do i write to a file in c# on my machine",
        ),
    ],
)
def test_texts_with_other_signs_are_not_nearly_the_same(first: str, second: str) -> None:
    assert near_texts(sorted([first, second])) == []


def test_nearness_follows_from_two_texts_alone() -> None:
    texts = ["are there any fees for top ups", "are there fees for top ups", "where is my card"]
    [(first, second, similarity)] = near_texts(texts)
    assert (first, second) == (0, 1)
    assert near.NEAR <= similarity < 1

    rng = random.Random(0)
    among_others = [*texts, *(sentence(rng) for _ in range(200)), "are there many fees"]
    assert near_texts(among_others)[0] == pytest.approx((0, 1, similarity))
    assert near.families(texts) == [0, 0, 2]


def near_sentences() -> list[str]:
    texts = []
    for start in WORDS[:12]:
        for end in WORDS[12:]:
            for when in ("today", "to day", "now"):
                texts.append(f"please {start} my account and tell me all about it {when} {end}")
    return texts


def test_near_texts_are_those_of_every_pair_compared() -> None:
    """The short cut past most pairs loses none."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = near_sentences()
    matrix = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), use_idf=False).fit_transform(
        texts
    )
    cosines = (matrix @ matrix.T).toarray()
    expected = {
        (first, second)
        for first, second in zip(*(cosines >= near.NEAR).nonzero(), strict=True)
        if first < second
    }
    found = {(first, second) for first, second, _ in near_texts(texts)}
    assert found == expected
    assert expected


def test_the_nearest_text_is_the_most_similar_of_those_marked() -> None:
    texts = near_sentences()
    rng = np.random.default_rng(0)
    marked = rng.random(len(texts)) < 0.5
    expected: dict[int, float] = {}
    for first, second, similarity in near_texts(texts):
        for text, other in ((first, second), (second, first)):
            if marked[other]:
                expected[text] = max(similarity, expected.get(text, 0.0))
    assert 5 < len(expected) < len(texts)

    [nearest] = near.find_nearest(texts, [marked])
    for text in range(len(texts)):
        assert nearest.similarity[text] == pytest.approx(expected.get(text, 0.0))
        assert (nearest.index[text] >= 0) == (text in expected)
        assert text not in expected or marked[nearest.index[text]]


# Rare intents

RARE = [("help me please", "agent"), ("nothing works", "broken"), ("it is broken", "broken")]


@pytest.mark.parametrize("split", ["stable", "stratified"])
def test_all_rare_intents_are_named_with_their_rows_and_the_choices(split: str, run: Run) -> None:
    source = write_csv(Path("a.csv"), [*tiny_rows(), *RARE])
    message = run_error(run, source, split=split)
    assert "2 intent(s) have too few rows" in message
    assert '"agent" (1), "broken" (2)' in message
    for choice in ("rare: train_only", "drop", "merge:NAME"):
        assert choice in message


@pytest.mark.parametrize("split", ["stable", "stratified"])
def test_rare_intents_can_be_trained_on_alone(split: str, run: Run) -> None:
    source = write_csv(Path("a.csv"), [*tiny_rows(), *RARE])
    out = run_etl(run, source, split=split, rare="train_only")
    assert read_labels("train")["broken"] == 2
    for name in ("val", "test"):
        assert read_labels(name).keys() == {"card_lost", "Exchange", "top_up"}
    assert "2 intents have no val and no test rows and cannot be judged there" in out
    assert "agent (1), broken (2)" in out
    assert len(dataset.load(Path("out")).labels) == 5


def test_trained_on_alone_leaves_the_draw_of_the_others(run: Run) -> None:
    run_etl(run, write_csv(Path("a.csv"), tiny_rows()), split="stratified")
    before = read_texts("test")
    source = write_csv(Path("a.csv"), [*tiny_rows(), *RARE])
    run_etl(run, source, split="stratified", rare="train_only")
    assert read_texts("test") == before


def test_few_shot_takes_what_intents_that_are_only_trained_on_have(run: Run) -> None:
    source = write_csv(Path("a.csv"), [*tiny_rows(), *RARE])
    run_etl(run, source, rare="train_only", few_shot=3)
    assert read_labels("train") == {
        "card_lost": 3,
        "Exchange": 3,
        "top_up": 3,
        "agent": 1,
        "broken": 2,
    }


def test_rare_intents_can_be_dropped(run: Run) -> None:
    source = write_csv(Path("a.csv"), [*tiny_rows(), *RARE])
    extra = write_csv(Path("more.csv"), [("do help me", "agent"), ("fund it", "top_up")])
    out = run_etl(run, source, rare="drop", extra_train=str(extra))
    assert '2 rare intents were dropped (rows in brackets): "agent" (1), "broken" (2)' in out
    assert dataset.load(Path("out")).labels.names == ("card_lost", "Exchange", "top_up")
    assert "1 rows of train come from extra_train" in out
    assert read_json("report.json")["rare"]["rows"] == {"agent": 1, "broken": 2}


@pytest.mark.parametrize(("target", "intents"), [("other", 4), ("top_up", 3), ("broken", 4)])
def test_rare_intents_can_be_merged(target: str, intents: int, run: Run) -> None:
    source = write_csv(Path("a.csv"), [*tiny_rows(), *RARE])
    out = run_etl(run, source, rare=f"merge:{target}")
    labels = dataset.load(Path("out")).labels
    assert len(labels) == intents
    counts = sum((read_labels(split) for split in SPLITS), Counter())
    assert counts[target] == 3 + (20 if target == "top_up" else 0)
    assert f'merged into "{target}"' in out


def test_a_merger_that_stays_rare_is_refused(run: Run) -> None:
    source = write_csv(Path("a.csv"), [*tiny_rows(), *RARE[:2]])
    message = run_error(run, source, rare="merge:other")
    assert 'after rare: merge:other there are still rare intents: "other" (2)' in message


def test_dropping_that_leaves_one_intent_is_refused(run: Run) -> None:
    source = write_csv(Path("a.csv"), [*tiny_rows()[:10], *RARE])
    message = run_error(run, source, rare="drop")
    assert "rare: drop leaves a.csv fewer than two intents. Add sentences" in message


@pytest.mark.parametrize("value", ["merge:", "merge: ", "keep", "Drop", "merge"])
def test_a_policy_that_does_not_exist_is_refused(value: str, run: Run) -> None:
    message = run_error(run, write_csv(Path("a.csv"), tiny_rows()), rare=value)
    assert "rare: expected refuse, train_only, drop or merge:NAME" in message


def test_the_order_of_labels_that_a_source_gives_follows_the_policy() -> None:
    from bankintent.corpus.splits import Corpus, Division, RareIntents

    rows = make_rows(5, intents=3)
    order = ("intent 2", "rare", "intent 0", "intent 1", "none has it")

    def schema(rare: RareIntents) -> LabelSchema:
        corpus = Corpus({"train": rows}, {}, None, Division("stable", ""), rare)
        return corpus.label_schema(order)

    assert schema(RareIntents("refuse")).names == order
    assert schema(RareIntents("train_only", {"rare": 1})).names == order
    dropped = ("intent 2", "intent 0", "intent 1", "none has it")
    assert schema(RareIntents("drop", {"rare": 1})).names == dropped
    merged = RareIntents("merge:other", {"rare": 1}, "other")
    assert schema(merged).names == (*dropped, "other")
    into_known = RareIntents("merge:intent 0", {"rare": 1}, "intent 0")
    assert schema(into_known).names == dropped


UNTRAINED = [("where is my parcel", "parcel"), ("call me", "call"), ("call me back", "call")]


@pytest.fixture
def untrained_folder() -> Path:
    return write_folder(
        train=tiny_rows(6), val=marked("mid", 3), test=[*marked("new", 3), *UNTRAINED]
    )


def test_all_intents_that_official_splits_do_not_train_are_named(
    untrained_folder: Path, run: Run
) -> None:
    message = run_error(run, untrained_folder)
    assert '2 intent(s) stand in val or test but not in train: "call" (2), "parcel" (1)' in message
    assert "rare: drop" in message
    assert "train_only" not in message

    message = run_error(run, untrained_folder, rare="train_only")
    assert "train_only cannot train on them" in message


@pytest.mark.parametrize("policy", ["drop", "merge:top_up"])
def test_intents_that_official_splits_do_not_train_can_be_dropped_or_merged(
    policy: str, untrained_folder: Path, run: Run
) -> None:
    run_etl(run, untrained_folder, rare=policy)
    assert dataset.load(Path("out")).labels.names == ("card_lost", "Exchange", "top_up")
    assert read_labels("test")["top_up"] == (3 if policy == "drop" else 6)


def test_extra_sentences_can_train_what_the_official_train_split_lacks(
    untrained_folder: Path, run: Run
) -> None:
    extra = write_csv(Path("more.csv"), [("send the parcel", "parcel"), ("ring me", "call")])
    run_etl(run, untrained_folder, extra_train=str(extra))
    assert read_labels("train")["parcel"] == 1


def test_an_intent_that_is_not_tested_is_fine_and_said(run: Run) -> None:
    more = [("help me please", "agent"), ("a person please", "agent"), ("human", "agent")]
    folder = write_folder(train=[*tiny_rows(6), *more], test=marked("new", 3))
    out = run_etl(run, folder)
    assert "1 intent has no test rows and cannot be judged there" in out
    assert "agent (2)" in out


def test_a_single_official_training_row_is_refused_or_kept_in_train(run: Run) -> None:
    folder = write_folder(
        train=[*tiny_rows(6), RARE[0]], test=[*marked("new", 3), ("help", "agent")]
    )
    assert 'which takes 2: "agent" (1)' in run_error(run, folder)
    run_etl(run, folder, rare="train_only")
    assert read_labels("train")["agent"] == read_labels("test")["agent"] == 1
    assert "agent" not in read_labels("val")


@pytest.mark.proof
@pytest.mark.parametrize("regime", ["head-only", "lora"])
def test_intents_that_are_only_trained_on_pass_every_later_step(
    regime: str, tiny_bert: Path, run: Run
) -> None:
    source = write_csv(Path("a.csv"), [*tiny_rows(), *RARE])
    run_etl(run, source, rare="train_only")
    config = train_config(
        Path("train.yaml"), tiny_bert, Path("out"), Path("bundle"), head_init="probe"
    )
    export = ("--set", "export.onnx=true")
    result = run(multiregime.main, "--config", config, "--regime", regime, *export)
    assert result.code == 0, result.err

    result = run(evaluate.main, "--checkpoint-path", "bundle", "--set", "tracking.enabled=false")
    assert result.code == 0, result.err
    report = Path("artifacts/evals/bundle/report.md").read_text()
    # Not judged, so not among the worst: named apart.
    assert "intents do not occur (agent, broken)" in report
    assert not re.search(r"^\| (agent|broken) \|", report, re.MULTILINE)

    settings = {"name": "small", "references": ["majority", "tfidf"], "data_dir": "out"}
    config = write_yaml(Path("baseline.yaml"), **settings, tracking={"enabled": False})
    result = run(baseline.main, "--config", config)
    assert result.code == 0, result.err


# What moved


def test_what_moved_against_the_former_output_is_said_and_recorded(run: Run) -> None:
    pairs = [(row.text, row.label_text) for row in make_rows(50)]
    source = write_csv(Path("a.csv"), pairs)
    first = run_etl(run, source)
    assert "former output" not in first
    assert "against_former" not in read_json("manifest.json")
    former_hash = read_json("manifest.json")["data_hash"]
    before = {split: set(read_texts(split)) for split in SPLITS}

    text, _ = pairs[0]
    edited = [(text, "intent 3"), *pairs[2:], *((f"{text} {i} {i}", "intent 2") for i in range(3))]
    out = run_etl(run, write_csv(Path("a.csv"), edited))
    record = read_json("manifest.json")["against_former"]
    assert record["data_hash"] == former_hash
    assert (record["rows"], record["relabelled"], record["new"], record["gone"]) == (199, 1, 3, 1)

    moved: Counter[str] = Counter()
    for after in SPLITS:
        for split in SPLITS:
            if split != after:
                moved[f"{split}/{after}"] += len(before[split] & set(read_texts(after)))
    assert record["moved"] == {pair: count for pair, count in moved.items() if count}
    assert f"Against the former output: {moved.total()} of 199 rows changed split" in out
    assert "1 relabelled, 3 new, 1 gone" in out


def test_rows_that_a_former_model_has_trained_on_are_told(run: Run) -> None:
    source = write_csv(Path("a.csv"), [(row.text, row.label_text) for row in make_rows(50)])
    run_etl(run, source)
    former = set(read_texts("train"))
    out = run_etl(run, source, seed=7)
    learned = len(former & set(read_texts("test")))
    assert learned > 0
    assert f"{learned} from train to test: models of the former data have trained on them" in out


def test_a_repeated_etl_changes_no_byte_of_the_comparison(run: Run) -> None:
    source = write_csv(Path("a.csv"), tiny_rows())
    run_etl(run, source, seed=1)
    run_etl(run, source, seed=2)
    before = Path("out/manifest.json").read_bytes()
    assert b"against_former" in before
    out = run_etl(run, source, seed=2)
    assert Path("out/manifest.json").read_bytes() == before
    assert "Against the former output: 0 of 60 rows changed split." in out


def test_an_output_without_the_newer_entries_is_read_and_compared(run: Run) -> None:
    source = write_csv(Path("a.csv"), tiny_rows())
    run_etl(run, source)
    path = Path("out/manifest.json")
    manifest = json.loads(path.read_text())
    del manifest["split"]
    for key in ("rare", "encoding", "delimiter", "sheet"):
        del manifest["config"][key]
    manifest["config"]["split"] = "stratified"
    path.write_text(json.dumps(manifest))

    assert len(dataset.load(Path("out")).read("test")) == 6
    out = run_etl(run, source, seed=7)
    assert "Against the former output" in out


def test_a_broken_former_output_is_replaced(run: Run) -> None:
    source = write_csv(Path("a.csv"), tiny_rows())
    run_etl(run, source)
    Path("out/test.parquet").write_bytes(b"broken")
    assert "former" not in run_etl(run, source)
    assert len(read_texts("test")) == 6
