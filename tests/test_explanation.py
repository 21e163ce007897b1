"""Why an answer: words left out one at a time, nearest sentences from the bundle's index, and every place that shows them."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run
from policy_fixtures import make_policy
from starlette.testclient import TestClient
from tiny_models import rows

import eval as evaluate
from bankintent import __main__ as verbs
from bankintent import api_key
from bankintent.bundle import index, layout, verification
from bankintent.bundle.index import SentenceIndex
from bankintent.config import ServeConfig, TrainConfig
from bankintent.corpus import dataset
from bankintent.corpus.dataset import SplitData
from bankintent.decision.deciding import Reason, Verdict
from bankintent.errors import ModelError
from bankintent.explanation import explainer, occlusion, showing
from bankintent.explanation.explainer import Explainer, explain, plan
from bankintent.gradio_app.explanation import NoExplanation, read_explanation
from bankintent.inference import choice
from bankintent.inference.runtime import ModelFacts, Outputs, Tokens
from bankintent.labels import LabelSchema
from bankintent.serving.app import create_app
from bankintent.serving.page.shading import pieces_of
from bankintent.serving.service import State
from bankintent.training import identity
from benchmarks.explanation import measure

LABELS = ("card_lost", "exchange", "top_up")
WORDS = ("card", "lost", "euros", "rate", "money", "add")
WEIGHTS = np.array(
    [[2, 0, 0.5], [3, 0, 0], [0, 2, 0], [0, 3, 0], [0, 0.5, 2], [0, 0, 3]], dtype=np.float32
)
"""(words, labels)"""
ATTACK = "<img src=x onerror=\"document.title='run'\"> card"


class CountingRuntime:
    """Features are the counts of WORDS in a text, and logits are linear in them, as a head's are."""

    workers = 1

    def __init__(self, folder: Path) -> None:
        self.policy: Any = None
        self.facts = ModelFacts(
            "counting", "1", LABELS, LabelSchema(LABELS).hash, "none", 0, 100, "a test's", folder
        )
        self.passes: list[int] = []
        self.has_features = True

    def tokenize(self, texts: list[str]) -> list[Tokens]:
        items = []
        for text in texts:
            words = text.lower().split()
            ids = [WORDS.index(word) if word in WORDS else len(WORDS) for word in words]
            items.append(Tokens({"input_ids": ids}, truncated=False))
        return items

    def outputs(self, items: list[Tokens]) -> Outputs:
        self.passes.append(len(items))
        features = np.zeros((len(items), len(WORDS)), dtype=np.float32)
        for row, item in enumerate(items):
            for word in item.features["input_ids"]:
                if word < len(WORDS):
                    features[row, word] += 1
        return Outputs(features @ WEIGHTS, features if self.has_features else None)

    def logits(self, items: list[Tokens]) -> Any:
        return self.outputs(items).logits


TRAINED = SplitData(
    ids=["a:1", "a:2", "a:3", "a:4"],
    texts=["my card is lost", "euros rate", "add money " + "x" * 500, "lost card"],
    labels=[0, 1, 2, 0],
)


def write_bundle(folder: Path, with_texts: bool = False) -> Path:
    """A sealed bundle of labels and an index of TRAINED; no model is in it."""
    folder.mkdir()
    labels = LabelSchema(LABELS)
    labels.save(folder / layout.LABELS)
    runtime = CountingRuntime(folder)
    features = runtime.outputs(runtime.tokenize(TRAINED.texts)).features
    assert features is not None
    index.write(folder, labels, TRAINED, features, trained_on=9, with_texts=with_texts)
    layout.seal(folder, {"name": "counting"})
    return folder


def read_index(bundle: Path) -> SentenceIndex | None:
    return index.read(bundle, layout.find_manifest(bundle), LabelSchema(LABELS))


# Words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("how do I  top up?", ["how", "do", "I", "top", "up?"]),
        (" card ", []),
        ("card \u200b", []),
        ("我的卡 help", ["我", "的", "卡", "help"]),
        ("ที่นี่", ["ที่", "นี่"]),
        ("a\nb\u00a0c", ["a", "b", "c"]),
    ],
)
def test_a_text_has_the_words_that_can_be_left_out(text: str, words: list[str]) -> None:
    parts = occlusion.parts_of(text)
    assert [part.of(text) for part in parts] == words
    for part in parts:
        assert part.left_out(text) == text[: part.start] + text[part.end :]


@pytest.mark.parametrize("words", [2, 63, 64, 65, 129, 2500])
def test_a_long_text_takes_no_more_passes_than_are_allowed(words: int) -> None:
    text = " ".join(f"w{number}" for number in range(words))
    parts = occlusion.parts_of(text)
    assert occlusion.passes(text) == len(plan(text).texts) <= occlusion.MOST_PARTS + 1
    assert len(parts) == min(words, len(parts)) >= min(words, occlusion.MOST_PARTS // 2)
    assert " ".join(part.of(text) for part in parts) == text


def test_the_words_that_decide_weigh_most_and_what_speaks_against_is_negative(
    tmp_path: Path,
) -> None:
    runtime = CountingRuntime(tmp_path)
    text = "please my lost card rate"
    [explanation] = explain([text], runtime, Explainer(tmp_path, LABELS))

    weights = {one.word: one.weight for one in explanation.attributions}
    assert explanation.decision.label == 0
    assert max(weights, key=lambda word: weights[word]) == "lost"
    assert weights["lost"] > weights["card"] > 0 > weights["rate"]
    assert weights["please"] == weights["my"] == 0
    for one in explanation.attributions:
        assert text[one.start : one.end] == one.word

    # What the weights are: anybody can leave out the word and ask again.
    [without] = explain(["please my card rate"], runtime, Explainer(tmp_path, LABELS))
    lost = next(one for one in explanation.attributions if one.word == "lost")
    scores = np.array([explanation.decision.score, lost.score_without])
    odds = np.log(scores / (1 - scores))
    assert lost.weight == pytest.approx(odds[0] - odds[1])
    assert without.decision.label == 1
    assert explain([text], runtime, Explainer(tmp_path, LABELS)) == [explanation]


def test_a_refusal_is_explained_and_said_to_be_one(tmp_path: Path) -> None:
    runtime = CountingRuntime(tmp_path)
    runtime.policy = make_policy(LABELS)
    [explanation] = explain(["please my"], runtime, Explainer(tmp_path, LABELS))
    assert explanation.decision.verdict is Verdict.ABSTAIN
    assert len(explanation.attributions) == 2

    for reason in Reason:
        first, second = showing.describe_decision(
            replace(explanation.decision, reason=reason), LABELS
        )
        assert first.startswith("No answer") == (reason is not Reason.NONE)
        assert LABELS[explanation.decision.label] in first + second


def test_shades_are_those_of_the_largest_weight_and_of_nothing_there_are_none() -> None:
    assert occlusion.shades([4.0, 2.0, -1.0, 0.1]) == [4, 2, -1, 0]
    assert occlusion.shades([0.01, -0.02]) == [0, 0]
    assert occlusion.shades([]) == []


def test_pieces_make_the_whole_text() -> None:
    text = " my  lost card. "
    runtime = CountingRuntime(Path())
    [explanation] = explain([text], runtime, Explainer(Path("nowhere"), LABELS))
    pieces = pieces_of(text, explanation.attributions)
    assert "".join(piece.text for piece in pieces) == text
    assert {piece.text: piece.degree for piece in pieces}["lost"] == 4


# The index


def test_the_nearest_sentences_come_with_their_intents_and_without_texts(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    sentences = read_index(bundle)
    assert sentences is not None
    assert sentences.vectors.dtype == np.float32

    runtime = CountingRuntime(bundle)
    [explanation] = explain(["lost card"], runtime, Explainer(bundle, LABELS), count=3)
    assert explanation.neighbours is not None
    found = [(near.id, near.intent, near.text) for near in explanation.neighbours]
    assert found == [
        ("a:1", "card_lost", None),
        ("a:4", "card_lost", None),
        ("a:2", "exchange", None),
    ]
    assert [near.similarity for near in explanation.neighbours] == pytest.approx(
        [1, 1, 0], abs=1e-3
    )


def test_no_sentence_is_in_a_bundle_that_was_not_told_to_hold_them(tmp_path: Path) -> None:
    for name, with_texts in (("without", False), ("with", True)):
        bundle = write_bundle(tmp_path / name, with_texts)
        content = b"".join(path.read_bytes() for path in bundle.rglob("*") if path.is_file())
        assert (b"euros rate" in content) == with_texts

    sentences = read_index(tmp_path / "with")
    assert sentences is not None
    assert sentences.rows.texts is not None
    assert sentences.rows.trained_on == 9
    assert max(map(len, sentences.rows.texts)) == index.LONGEST_TEXT


@pytest.mark.parametrize(
    ("most", "counts"), [(10, [4, 2, 4]), (27, [5, 2, 20]), (3, [1, 1, 1]), (100, [5, 2, 20])]
)
def test_of_too_many_rows_each_intent_keeps_its_share(most: int, counts: list[int]) -> None:
    labels = [0] * 5 + [1] * 2 + [2] * 20
    chosen = index.choose(labels, most)
    assert chosen == sorted(set(chosen))
    assert np.bincount([labels[row] for row in chosen]).tolist() == counts


def test_wide_vectors_are_fewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Room for three vectors of six numbers.
    monkeypatch.setattr(index, "LARGEST_VECTORS", 3 * 6 * 2)
    sentences = read_index(write_bundle(tmp_path / "bundle"))
    assert sentences is not None
    assert len(sentences.vectors) == len(sentences.rows.ids) == 3


@pytest.mark.parametrize("name", [index.VECTORS, index.ROWS])
def test_a_changed_index_is_refused_and_an_answer_goes_without_it(
    tmp_path: Path, name: str
) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    path = bundle / index.FOLDER / name
    path.write_bytes(path.read_bytes()[:-1] + b" ")
    with pytest.raises(ModelError, match=name):
        read_index(bundle)
    assert verification.verify(bundle).faults

    [explanation] = explain(["lost card"], CountingRuntime(bundle), Explainer(bundle, LABELS))
    assert explanation.neighbours is None
    assert explanation.no_neighbours == explainer.DAMAGED
    assert explanation.attributions


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"labels_hash": "0"},
        {"ids": ["a"]},
        {"texts": ["a"]},
        {"ids": None},
    ],
)
def test_an_index_of_another_form_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    path = bundle / index.FOLDER / index.ROWS
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    (bundle / layout.MANIFEST).unlink()
    layout.seal(bundle, {"name": "counting"})
    with pytest.raises(ModelError):
        read_index(bundle)


def test_a_bundle_without_an_index_says_so(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    shutil.rmtree(bundle / index.FOLDER)
    assert read_index(bundle) is None

    for folder in (bundle, tmp_path / "nowhere"):
        [explanation] = explain(["lost card"], CountingRuntime(folder), Explainer(folder, LABELS))
        assert explanation.no_neighbours == explainer.NO_INDEX


def test_a_runtime_without_features_says_so(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    runtime = CountingRuntime(bundle)
    runtime.has_features = False
    [explanation] = explain(["lost card"], runtime, Explainer(bundle, LABELS))
    assert explanation.no_neighbours == explainer.NO_FEATURES


# A published bundle


def test_a_published_index_knows_its_own_sentences(trained: Path) -> None:
    bundle = trained / "bundle"
    assert verification.verify(bundle).faults == []
    train = dataset.load(trained / "data").read("train")
    runtime = choice.find(bundle, "torch", 1).load()
    [explanation] = explain([train.texts[3]], runtime, Explainer(bundle, runtime.facts.labels))

    assert explanation.neighbours is not None
    nearest = explanation.neighbours[0]
    assert (nearest.id, nearest.text) == (train.ids[3], None)
    assert nearest.intent == runtime.facts.labels[train.labels[3]]
    assert nearest.similarity == pytest.approx(1, abs=2e-3)


def test_settings_of_the_index_belong_to_a_run_only_where_they_are_not_the_defaults(
    data_dir: Path,
) -> None:
    config = TrainConfig(
        model_name="m", regime="lora", data_dir=data_dir, output_dir=Path("bundle")
    )
    data = dataset.load(data_dir)
    plain = identity.identity(config, data)
    assert "explain" not in plain["settings"]

    section = config.explain.model_copy(update={"texts": True})
    told = identity.identity(config.model_copy(update={"explain": section}), data)
    assert not identity.same(plain, told)
    assert identity.first_difference(plain, told) == "explain.texts is False, now True"
    with pytest.raises(ValueError, match="needs the index"):
        TrainConfig.model_validate(
            {**config.model_dump(), "explain": {"texts": True, "index": False}}
        )


def test_the_command_prints_decision_words_and_neighbours(trained: Path, run: Run) -> None:
    result = run(verbs.explain, "i lost my card number 3", "--model-dir", trained / "bundle")
    assert result.code == 0, result.err
    assert "Answer: " in result.out
    assert "score without" in result.out
    assert "Nearest training sentences" in result.out
    assert "small.csv:" in result.out
    assert "\x1b" not in result.out


def test_the_command_says_briefly_what_is_decided(trained: Path, run: Run) -> None:
    texts = ["i lost my card", "hello"]
    result = run(verbs.explain, *texts, "--model-dir", trained / "bundle", "--brief")
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert [line for line in lines if not line.startswith("  ")] == texts
    assert len(lines) == 6


def test_the_command_refuses_what_it_cannot_explain(trained: Path, run: Run) -> None:
    blank = run(verbs.explain, " ", "--model-dir", trained / "bundle")
    assert "a text is blank" in blank.one_line_error()
    assert "texts" in run(verbs.explain, "--model-dir", trained / "bundle").one_line_error()
    assert "model_dir" in run(verbs.explain, "a card").one_line_error()


def test_an_evaluation_lists_wrong_answers_with_what_they_lie_near_to(
    bundle: Path, run: Run
) -> None:
    command = ("--checkpoint_path", bundle, "--data-dir", bundle.parent / "data")
    quiet = ("--set", "tracking.enabled=false", "--set", "bootstrap=100")
    # Of another intent than the model has learned: each is wrong.
    table = bundle.parent / "wrong.csv"
    lines = [f"{text},{'top_up' if label == 'Exchange' else 'Exchange'}" for text, label in rows()]
    table.write_text("\n".join(["text,label", *lines]))

    result = run(evaluate.main, *command[:2], "--data", table, "--output-dir", "plain", *quiet)
    assert result.code == 0, result.err
    wrong = json.loads(Path("plain/metrics.json").read_text())["wrong"]
    assert 0 < len(wrong) <= 50
    assert [row["score"] for row in wrong] == sorted([row["score"] for row in wrong], reverse=True)
    for row in wrong:
        assert row["label"] != row["predicted"]
        assert row["text"] is None
        assert len(row["neighbours"]) == 3
    report = Path("plain/report.md").read_text()
    assert "## Wrong answers, the most confident first" in report
    assert f"({wrong[0]['neighbours'][0]['id']})" in report

    asked = ("--with-texts", "--output-dir", "texts", *quiet)
    assert run(evaluate.main, *command[:2], "--data", table, *asked).code == 0
    told = json.loads(Path("texts/metrics.json").read_text())["wrong"]
    assert told[0]["text"] in Path("texts/report.md").read_text()
    assert [row["id"] for row in told] == [row["id"] for row in wrong]
    # Words are texts: they are told where texts are asked for alone.
    assert {row["words"] is None for row in wrong} == {True}
    assert [word["word"] for word in told[0]["words"]] == told[0]["text"].split()
    assert "words that weigh most" in Path("texts/report.md").read_text()


# The API and its page


Connect = Callable[..., TestClient]


@pytest.fixture
def connect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """Serve a CountingRuntime over a bundle, by default one with an index that has the texts."""
    monkeypatch.delenv(api_key.KEY_VARIABLE, raising=False)
    clients: list[TestClient] = []

    def make(folder: Path | None = None, **settings: Any) -> TestClient:
        bundle = folder or write_bundle(tmp_path / "served", with_texts=True)
        app = create_app(ServeConfig(**settings), lambda _: lambda: CountingRuntime(bundle))
        client = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)
        clients.append(client.__enter__())
        while app.state.service.state is not State.READY:
            client.get("/health/live")
        return client

    yield make
    for client in clients:
        client.__exit__(None, None, None)


def ask(client: TestClient, text: str | list[str], **more: Any) -> Any:
    return client.post("/predict/", json={"text": text, **more})


@pytest.mark.parametrize("path", ["/predict/", "/predict"])
def test_the_api_explains_where_it_is_asked_to(connect: Connect, path: str) -> None:
    client = connect()
    text = "my lost card"
    plain = client.post(path, json={"text": text}).json()
    assert "explanation" not in plain

    told = client.post(path, json={"text": text, "explain": True}).json()
    explanation = told.pop("explanation")
    assert told == plain
    assert explanation["no_neighbours"] is None
    assert explanation["neighbours"][0]["text"] == "my card is lost"
    assert len(explanation["neighbours"]) == 4  # all that the index has
    assert [one["word"] for one in explanation["attributions"]] == ["my", "lost", "card"]

    # Whatever stands beside it in the request.
    many = client.post(path, json={"text": ["euros", text, "card"], "explain": True}).json()
    assert many[1]["explanation"] == explanation
    assert many[0]["explanation"]["attributions"] == []


def test_the_score_without_a_word_is_that_of_the_text_without_it(connect: Connect) -> None:
    client = connect()
    told = ask(client, "lost card rate", explain=True).json()
    for word in told["explanation"]["attributions"]:
        text = "lost card rate"[: word["start"]] + "lost card rate"[word["end"] :]
        scores = {row["label"]: row["score"] for row in ask(client, text).json()["top_k"]}
        assert scores[told["label"]] == pytest.approx(word["score_without"], abs=1e-6)


@pytest.mark.parametrize(
    ("limits", "texts", "says"),
    [
        ({}, ["card lost"] * 5, "at most 4 are explained"),
        ({"max_explained": 0}, ["card lost"], "explains no answers"),
        ({"max_queue": 3, "max_texts": 3}, ["card lost rate"], "takes 4 passes"),
        ({"max_queue": 5, "max_texts": 3}, ["card lost", "card lost"], "has 5 places"),
    ],
)
def test_too_many_explanations_are_refused_before_anything_is_computed(
    connect: Connect, limits: dict[str, int], texts: list[str], says: str
) -> None:
    client = connect(limits=limits)
    response = ask(client, texts, explain=True)
    assert response.status_code == 422
    assert response.json()["error"].startswith("explain: ")
    assert says in response.json()["error"]
    assert ask(client, texts[:3]).status_code == 200


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_explain_is_true_or_false(connect: Connect, value: Any) -> None:
    response = ask(connect(), "card", explain=value)
    assert response.status_code == 422
    assert response.json()["error"].startswith("explain: ")


def test_each_pass_takes_a_place_in_the_queue_and_none_in_the_cache(connect: Connect) -> None:
    client = connect(cache=10, limits={"max_queue": 8, "max_texts": 8})
    held = []
    service_in_use = client.app.state.service  # type: ignore[attr-defined]
    compute = service_in_use.compute

    async def watch(texts: list[str], deadline: float) -> Any:
        held.append(len(texts))
        return await compute(texts, deadline)

    service_in_use.compute = watch
    assert ask(client, "a lost card", explain=True).status_code == 200
    assert held == [4]
    assert not service_in_use._recent._answers


def test_a_text_whose_rest_is_blank_to_the_model_has_no_weights(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drop_signs(runtime: CountingRuntime, texts: list[str]) -> list[Tokens]:
        return tokenize(runtime, [text.replace("\u263a", "") for text in texts])

    tokenize = CountingRuntime.tokenize
    monkeypatch.setattr(CountingRuntime, "tokenize", drop_signs)
    client = connect()
    told = ask(client, "card \u263a", explain=True)
    assert told.status_code == 200
    assert told.json()["explanation"]["attributions"] == []
    assert ask(client, "\u263a", explain=True).status_code == 422


def test_the_index_is_read_with_the_first_explanation(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    read = index.read

    def count(*arguments: Any) -> Any:
        reads.append(1)
        return read(*arguments)

    monkeypatch.setattr(index, "read", count)
    client = connect()
    assert ask(client, "card").status_code == 200
    assert reads == []
    for _ in range(2):
        assert ask(client, "lost card", explain=True).status_code == 200
    assert reads == [1]


def test_a_model_without_an_index_is_explained_by_its_words(
    connect: Connect, tmp_path: Path
) -> None:
    told = ask(connect(tmp_path / "nowhere"), "lost card", explain=True).json()
    assert told["explanation"]["neighbours"] is None
    assert told["explanation"]["no_neighbours"] == explainer.NO_INDEX
    assert len(told["explanation"]["attributions"]) == 2


def test_the_page_explains_behind_a_button_and_escapes_what_it_shows(
    connect: Connect, tmp_path: Path
) -> None:
    client = connect()
    plain = client.post("/", data={"text": ATTACK}).text
    assert 'name="why"' in plain
    assert "<mark" not in plain

    told = client.post("/", data={"text": ATTACK, "why": "true"}).text
    assert 'name="why"' not in told
    assert "<img" not in told
    assert '<mark class="for4" title="Without it: ' in told
    assert "<q>my card is lost</q>" in told
    assert "style=" not in told
    assert "The only word" in client.post("/", data={"text": "card", "why": "true"}).text
    assert "No single word" in client.post("/", data={"text": "x y", "why": "true"}).text

    none = connect(tmp_path / "nowhere", limits={"max_explained": 0})
    assert 'name="why"' not in none.post("/", data={"text": ATTACK}).text


def test_the_benchmark_counts_passes_and_compares_with_an_answer(tmp_path: Path) -> None:
    cost = measure(CountingRuntime(write_bundle(tmp_path / "bundle")), ["a lost card", "euros"])
    assert cost.passes == 2.5
    assert cost.answer > 0
    assert cost.explanation > 0


@pytest.mark.parametrize(
    "change",
    [
        {"neighbours": "all"},
        {"neighbours": [{"intent": "a", "similarity": float("nan"), "text": None}]},
        {"neighbours": [{"intent": "a", "similarity": 0.5, "text": 5}]},
        {"attributions": None},
        {"attributions": [{"start": 3, "end": 99, "weight": 1, "score_without": 0.5}]},
        {"attributions": [{"start": -1, "end": 2, "weight": 1, "score_without": 0.5}]},
        {"attributions": [{"start": True, "end": 2, "weight": 1, "score_without": 0.5}]},
        {"attributions": [{"start": 0, "end": 2, "weight": 1e999, "score_without": 0.5}]},
        {"attributions": [{"start": 0, "end": 2, "weight": 1, "score_without": 0.5}] * 2},
        {"no_neighbours": 5},
    ],
)
def test_an_explanation_of_another_form_is_not_shown(change: dict[str, Any]) -> None:
    near = {"intent": "a", "similarity": 0.5, "text": None}
    word = {"start": 0, "end": 4, "weight": 1.0, "score_without": 0.5}
    right = {"neighbours": [near], "no_neighbours": None, "attributions": [word]}
    assert read_explanation({"label": "a", "explanation": right}, "card lost").weights[0].end == 4
    with pytest.raises(NoExplanation):
        read_explanation({"label": "a", "explanation": right | change}, "card lost")
