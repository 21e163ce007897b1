"""References: what each computes against an independent calculation, what is refused."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import REPOSITORY, Run, write_csv, write_yaml
from tiny_models import NLI_LABELS, tiny_nli

import baseline
import eval as evaluate
from bankintent import files, hub, tracking
from bankintent.baselines import references, trivial
from bankintent.baselines.references import REFERENCES, ReferenceAnswer, ReferenceTask
from bankintent.config import BaselineConfig, NliSection
from bankintent.configfile import load
from bankintent.corpus.dataset import SplitData
from bankintent.errors import ConfigError, LabelError, ModelError
from bankintent.inference.evaluation import Evaluation, TrivialRecord
from bankintent.labels import LabelSchema

LABELS = LabelSchema(("card_lost", "Exchange", "top_up"))

TRAIN = [
    ("my card is gone", 0),
    ("i lost my card", 0),
    ("rate of euros", 1),
    ("exchange rate", 1),
    ("add money", 2),
] * 4
TRAIN += [("add funds", 2), ("top up now", 2)]

TEXTS = [
    "i lost my card on the train",
    "exchange",
    "how do i add money to my account today",
    "rate",
]


def make_task(
    texts: list[str] = TEXTS, train: list[tuple[str, int]] = TRAIN, **settings: Any
) -> ReferenceTask:
    config = BaselineConfig(references=list(REFERENCES), **({"max_length": 32} | settings))
    ids = [str(row) for row in range(len(train))]
    sentences = [text for text, _ in train]
    label_ids = [label for _, label in train]
    return ReferenceTask(
        config=config,
        labels=LABELS,
        label_texts=references.label_phrases(LABELS, config.label_texts),
        train=SplitData(ids, sentences, label_ids),
        texts=texts,
        progress=lambda units, total: None,
    )


def answer_of(name: str, task: ReferenceTask) -> ReferenceAnswer:
    return REFERENCES[name].answer(task)


def record_progress(task: ReferenceTask) -> tuple[ReferenceTask, list[tuple[int, int]]]:
    """The task, and the list to which it will add (units of work, units in all)."""
    steps: list[tuple[int, int]] = []
    recorded = replace(task, progress=lambda units, total: steps.append((units, total)))
    return recorded, steps


def write_config(model: Path, nli_model: Path, data_dir: str = "data", **more: Any) -> Path:
    settings: dict[str, Any] = {
        "name": "small",
        "references": list(REFERENCES),
        "data_dir": data_dir,
        "model_name": str(model),
        "max_length": 32,
        "nli": {"model_name": str(nli_model), "max_length": 48},
        "tracking": {"enabled": False},
    }
    return write_yaml(Path("baseline.yaml"), **(settings | more))


@pytest.fixture(scope="session")
def nli_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_nli(tmp_path_factory.mktemp("tiny-nli"))


def test_every_reference_is_reported_in_the_shape_of_an_evaluation(
    bundle: Path, tiny_bert: Path, nli_model: Path, run: Run
) -> None:
    evaluated = run(evaluate.main, "--checkpoint-path", bundle, "--set", "tracking.enabled=false")
    assert evaluated.code == 0
    result = run(baseline.main, "--config", write_config(tiny_bert, nli_model))
    assert result.code == 0, result.err

    bundle_report = Path("artifacts/evals/bundle")
    expected = json.loads((bundle_report / "metrics.json").read_text())
    # The sentences near a wrong row are asked of a model; a reference has none.
    assert expected.pop("wrong")
    ids = pq.read_table(bundle_report / "predictions.parquet")["id"]
    for name in REFERENCES:
        folder = Path(f"artifacts/evals/small-{name}")
        assert set(files.list_files(folder)) == set(files.list_files(bundle_report))
        figures = json.loads((folder / "metrics.json").read_text())
        assert figures.pop("reference")["name"] == name
        assert figures.keys() == expected.keys()
        for key in ("checkpoint", "data", "metrics", "bootstrap"):
            assert figures[key].keys() == expected[key].keys()
        # Where all answers are right, or all wrong, macro-F1 has no interval.
        is_all_or_none = figures["metrics"]["accuracy"] in (0, 1)
        with_interval = {"accuracy"} if is_all_or_none else {"accuracy", "macro_f1"}
        assert figures["intervals"].keys() == with_interval
        for key in ("data", "split", "rows"):
            assert figures[key] == expected[key]
        assert pq.read_table(folder / "predictions.parquet")["id"] == ids
        assert "model loaded as" not in (folder / "report.md").read_text()

        accuracy = figures["metrics"]["accuracy"]
        low, high = figures["intervals"]["accuracy"]
        line = next(line for line in result.out.splitlines() if line.split()[:1] == [name])
        assert f"{100 * accuracy:.2f} ({100 * low:.2f} to {100 * high:.2f})" in line


def test_each_reference_is_logged_as_a_run_of_its_own(
    trained: Path, tiny_bert: Path, nli_model: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[Any] = []

    class Recorder(tracking.Tracker):
        def params(self, values: dict[str, Any]) -> None:
            logged.append(values["references"])

        def metrics(self, values: dict[str, float], step: int | None = None) -> None:
            logged.append(set(values))

        def files(self, path: Path, place: str | None = None) -> None:
            logged.append(path)

    @contextlib.contextmanager
    def recorded(config: Any, name: str, tags: dict[str, str]) -> Iterator[tracking.Tracker]:
        logged.append((name, tags["reference"], tags["split"]))
        yield Recorder(config)

    monkeypatch.setattr(tracking, "run", recorded)
    names = ["majority", "embedding"]
    config = write_config(
        tiny_bert, nli_model, str(trained / "data"), references=names, split="val"
    )
    assert run(baseline.main, "--config", config).code == 0

    metrics = {f"val_{key}" for key in ("accuracy", "macro_f1", "top3_accuracy", "ece", "nll")}
    metrics |= {"seconds", "accuracy", "macro_f1"}
    for name, entries in (("majority", logged[:4]), ("embedding", logged[4:])):
        folder = Path(f"artifacts/evals/small-{name}-val")
        run_name = (f"small-{name}-eval-val", name, "val")
        assert entries == [run_name, names, metrics, folder]


def test_majority_answers_the_most_frequent_intent_with_the_shares_of_train() -> None:
    answer = answer_of("majority", make_task())
    assert answer.logits.shape == (len(TEXTS), 3)
    shares = [[9 / 25, 9 / 25, 7 / 25]] * len(TEXTS)
    np.testing.assert_allclose(np.exp(answer.logits), shares, rtol=1e-6)
    assert 'always "card_lost"' in answer.about


def test_tfidf_learns_from_train_with_a_strength_chosen_there() -> None:
    task, steps = record_progress(make_task())
    answer = answer_of("tfidf", task)
    assert answer.logits.argmax(axis=1).tolist() == [0, 1, 2, 1]
    np.testing.assert_allclose(np.exp(answer.logits).sum(axis=1), 1, rtol=1e-5)
    assert "3-fold cross-validation on train" in answer.about
    _, total = steps[0]
    assert sum(units for units, _ in steps) == total


def test_tfidf_copes_with_one_sentence_and_with_an_intent_that_train_lacks() -> None:
    task, steps = record_progress(make_task(train=[("my card is gone", 0), ("add money", 2)]))
    answer = answer_of("tfidf", task)
    assert np.isfinite(answer.logits).all()
    assert set(answer.logits.argmax(axis=1).tolist()) == {0, 2}
    assert "too few to choose" in answer.about
    _, total = steps[0]
    assert sum(units for units, _ in steps) == total


def test_untrained_is_the_random_head_of_its_seed(tiny_bert: Path) -> None:
    def untrained_logits(seed: int, batch_size: int) -> Any:
        task = make_task(model_name=str(tiny_bert), seed=seed, batch_size=batch_size)
        return answer_of("untrained", task).logits

    first = untrained_logits(seed=1, batch_size=2)
    np.testing.assert_allclose(untrained_logits(seed=1, batch_size=64), first, atol=1e-5)
    other = untrained_logits(seed=2, batch_size=64)
    assert np.abs(first - other).max() > 1e-3


def test_embedding_is_the_scaled_cosine_of_masked_means(tiny_bert: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(tiny_bert).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)

    def unit_means(texts: list[str]) -> Any:
        means = []
        for text in texts:
            with torch.no_grad():
                states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
            mean = states.mean(dim=0).numpy()
            means.append(mean / np.linalg.norm(mean))
        return np.stack(means)

    phrases = ["about card lost", "about euros", "about top up"]
    expected = 7 * unit_means(TEXTS) @ unit_means(phrases).T
    task = make_task(
        model_name=str(tiny_bert),
        embedding={"template": "about {}", "scale": 7},
        label_texts={"Exchange": "euros"},
        batch_size=3,
    )
    np.testing.assert_allclose(answer_of("embedding", task).logits, expected, atol=1e-4)


@pytest.mark.parametrize("architecture", ["bert", "bart"])
def test_nli_is_the_entailment_logit_of_each_pair_with_only_the_sentence_cut(
    architecture: str, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tiny_nli(tmp_path / "nli", architecture)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    # Longer than what is left of the longest text.
    lost = "a card that was lost on the train or stolen or gone today"
    texts = [*TEXTS, "i lost my card and then " * 20]
    hypotheses = [f"it is {phrase} ." for phrase in (lost, "exchange", "top up")]

    def token_ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    def entailment_logit(text: str, hypothesis: str) -> float:
        premise_ids = token_ids(text)
        hypothesis_ids = token_ids(hypothesis)
        room = 32 - len(hypothesis_ids) - 3
        ids = [2, *premise_ids[:room], 3, *hypothesis_ids, 3]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0]
        return float(logits[NLI_LABELS.index("entailment")])

    section = {
        "model_name": str(folder),
        "template": "it is {} .",
        "max_length": 32,
        "batch_size": 4,
    }
    task, steps = record_progress(make_task(texts, nli=section, label_texts={"card_lost": lost}))
    logits = answer_of("nli", task).logits
    for row, text in enumerate(texts):
        expected = [entailment_logit(text, hypothesis) for hypothesis in hypotheses]
        np.testing.assert_allclose(logits[row], expected, atol=1e-4)
    assert np.ptp(logits) > 0.1

    assert sum(units for units, _ in steps) == 15
    assert {total for _, total in steps} == {15}


def test_permuted_nli_labels_give_equal_answers(nli_model: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    order = [2, 0, 1]
    model = AutoModelForSequenceClassification.from_pretrained(nli_model)
    with torch.no_grad():
        for parameter in (model.classifier.weight, model.classifier.bias):
            parameter.copy_(parameter[order].clone())
    names = [NLI_LABELS[label_id].upper() for label_id in order]
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: label_id for label_id, name in enumerate(names)}
    permuted = tmp_path / "permuted"
    model.save_pretrained(permuted)
    AutoTokenizer.from_pretrained(nli_model).save_pretrained(permuted)

    def nli_logits(folder: Path) -> Any:
        section = {"model_name": str(folder), "max_length": 48}
        return answer_of("nli", make_task(nli=section)).logits

    np.testing.assert_array_equal(nli_logits(nli_model), nli_logits(permuted))


def test_a_model_without_one_entailment_label_is_refused_with_its_labels(
    tmp_path: Path, tiny_bert: Path
) -> None:
    from bankintent.baselines.zero_shot import find_entailment_id, load_nli

    assert find_entailment_id({0: "not_entailment", 1: "Entailment"}, "m") == 1
    for labels, expected in (
        (("no", "maybe", "yes"), "no entailment label; its labels are no, maybe, yes"),
        (("entailment", "entailed", "neutral"), "more than one entailment label"),
    ):
        folder = tiny_nli(tmp_path / labels[0], labels=labels)
        with pytest.raises(ModelError, match=expected):
            load_nli(NliSection(model_name=str(folder)))
    with pytest.raises(ModelError, match="its labels are LABEL_0, LABEL_1"):
        load_nli(NliSection(model_name=str(tiny_bert)))


def test_an_nli_model_that_is_unusable_is_refused(nli_model: Path, tmp_path: Path) -> None:
    from bankintent.baselines.zero_shot import load_nli

    with pytest.raises(ModelError, match="max_length 128 is above the 66 positions"):
        load_nli(NliSection(model_name=str(nli_model)))

    broken = shutil.copytree(nli_model, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"not a tensor file")
    with pytest.raises(ModelError, match="broken cannot be loaded"):
        load_nli(NliSection(model_name=str(broken), max_length=32))


def test_a_hypothesis_that_leaves_no_room_for_the_sentence_is_refused(nli_model: Path) -> None:
    section = {
        "model_name": str(nli_model),
        "max_length": 8,
        "template": "the sentence in front of this is {}",
    }
    expected = r"nli.max_length 8 tokens, which leaves none for the sentence"
    with pytest.raises(ConfigError, match=expected):
        answer_of("nli", make_task(nli=section))


def test_label_texts_are_the_names_unless_given_and_must_name_intents() -> None:
    phrases = references.label_phrases(LABELS, {"top_up": "adding money"})
    assert phrases == ("card lost", "Exchange", "adding money")

    expected = r'"card_los", which is no intent of this data\. Did you mean "card_lost"\?'
    with pytest.raises(LabelError, match=expected):
        references.label_phrases(LABELS, {"card_los": "x"})


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"references": ["tfdif"]}, 'unknown reference "tfdif", did you mean "tfidf"?'),
        ({"references": ["majority", "majority"]}, "majority stands twice"),
        ({"references": []}, "references: "),
        ({"nli": {"template": "this is it"}}, "nli.template: a template holds {} once"),
        ({"split": "train"}, "split: input should be 'val' or 'test'"),
        ({"name": "a/b"}, "name: "),
        ({"label_texts": {"pin": "a PIN"}}, 'label_texts names "pin"'),
        (
            {"references": ["majority", "nli"], "nli": {"model_name": "./nowhere"}},
            "nowhere does not exist",
        ),
        (
            {"references": ["majority", "embedding"], "model_name": "./nowhere"},
            "nowhere does not exist",
        ),
    ],
)
def test_a_wrong_setting_is_refused_before_any_work(
    settings: dict[str, Any],
    expected: str,
    trained: Path,
    tiny_bert: Path,
    nli_model: Path,
    run: Run,
) -> None:
    config = write_config(tiny_bert, nli_model, str(trained / "data"), **settings)
    assert expected in run(baseline.main, "--config", config).one_line_error()
    assert not Path("artifacts").exists()


def test_a_folder_that_is_no_report_is_left_alone(
    trained: Path, tiny_bert: Path, nli_model: Path, run: Run
) -> None:
    other = Path("artifacts/evals/small-nli")
    other.mkdir(parents=True)
    (other / "notes.txt").write_text("mine")
    config = write_config(
        tiny_bert, nli_model, str(trained / "data"), references=["majority", "nli"]
    )
    assert "is no evaluation report" in run(baseline.main, "--config", config).one_line_error()
    assert files.list_files(Path("artifacts")) == ["evals/small-nli/notes.txt"]


def test_the_quickstart_needs_no_hub_and_shipped_configs_name_known_references(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    required = []
    monkeypatch.setattr(hub, "require_reachable", lambda what, choices: required.append(what))
    configs = REPOSITORY / "configs"
    quickstart = load(BaselineConfig, configs / "quickstart" / "baseline.yaml")
    references.require_references(quickstart)
    assert not required

    full = load(BaselineConfig, configs / "baseline.yaml")
    references.require_references(full)
    assert required == ['the model "facebook/bart-large-mnli"']


NO_TRACKING = ("--set", "tracking.enabled=false")


def evaluate_bundle(run: Run, *words: object) -> tuple[str, dict[str, Any]]:
    """What an evaluation of the small bundle prints, in one line, and its metrics.json."""
    command = ("--checkpoint-path", "bundle", "--output-dir", "r", *words, *NO_TRACKING)
    result = run(evaluate.main, *command)
    assert result.code == 0, result.err
    return " ".join(result.out.split()), json.loads(Path("r/metrics.json").read_text())


def fit_directly(text_column: str = "text") -> float:
    """Accuracy on ETL's test split of TF-IDF that is fitted on its train split."""
    from bankintent.baselines.tfidf import FIXED_STRENGTH, make_tfidf_pipeline

    train = pq.read_table("data/train.parquet")
    test = pq.read_table("data/test.parquet")
    pipeline = make_tfidf_pipeline(FIXED_STRENGTH)
    pipeline.fit(train[text_column].to_pylist(), train["label"].to_pylist())
    return float(pipeline.score(test[text_column].to_pylist(), test["label"].to_pylist()))


def test_an_evaluation_stands_beside_tfidf_on_the_same_rows(bundle: Path, run: Run) -> None:
    printed, record = evaluate_bundle(run)
    entry = record["trivial"]
    assert entry["accuracy"] == pytest.approx(fit_directly())
    assert entry["train_rows"] == pq.read_metadata("data/train.parquet").num_rows
    difference = record["metrics"]["accuracy"] - entry["accuracy"]
    assert entry["difference"] == pytest.approx(difference)
    low, high = entry["interval"]
    assert low <= difference <= high

    line = f"TF-IDF and logistic regression: {100 * entry['accuracy']:.2f} %; this model is"
    assert line in printed
    assert line in Path("r/report.md").read_text()


def test_answers_of_tfidf_are_kept_for_the_same_rows_alone(
    bundle: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = []
    fit = trivial._fit_and_answer

    def counted(*arguments: Any) -> Any:
        fits.append(len(fits))
        return fit(*arguments)

    monkeypatch.setattr(trivial, "_fit_and_answer", counted)
    _, first = evaluate_bundle(run)
    _, second = evaluate_bundle(run)
    assert len(fits) == 1
    assert second["trivial"] == first["trivial"]

    evaluate_bundle(run, "--split", "val")
    assert len(fits) == 2
    rows = pq.read_table("data/test.parquet").to_pylist()
    write_csv(Path("may.csv"), [(row["text"], row["label_text"]) for row in rows])
    _, table = evaluate_bundle(run, "--data", "may.csv")
    assert len(fits) == 2
    assert table["trivial"] == first["trivial"]


@pytest.mark.parametrize(
    "damage", ["", "[]", '{"key": "x", "answers": [0]}', "short", "range", "digit", "no hash"]
)
def test_damaged_answers_are_not_believed(damage: str, bundle: Path, run: Run) -> None:
    _, first = evaluate_bundle(run)
    (kept,) = trivial.CACHE.iterdir()
    whole = kept.read_text()
    content = json.loads(whole)
    match damage:
        case "short":
            damage = json.dumps(content | {"answers": content["answers"][:-1]})
        case "range":
            damage = json.dumps(content | {"answers": [3] * len(content["answers"])})
        case "digit":
            first_answer = (content["answers"][0] + 1) % 3
            damage = json.dumps(content | {"answers": [first_answer, *content["answers"][1:]]})
        case "no hash":
            damage = json.dumps({key: content[key] for key in ("key", "answers")})
    kept.write_text(damage)

    _, again = evaluate_bundle(run)
    assert again["trivial"] == first["trivial"]
    assert kept.read_text() == whole


@pytest.mark.parametrize("fault", [ValueError("empty\nvocabulary"), OSError("x"), MemoryError()])
def test_a_fault_of_tfidf_costs_no_evaluation(
    fault: Exception, bundle: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> Any:
        raise fault

    monkeypatch.setattr(trivial, "_fit_and_answer", fail)
    printed, record = evaluate_bundle(run)
    assert record["trivial"] is None
    assert "Not compared with TF-IDF: it could not be fitted" in printed


def test_answers_that_cannot_be_kept_are_used_all_the_same(bundle: Path, run: Run) -> None:
    # A file where the folder should be.
    trivial.CACHE.parent.mkdir(parents=True)
    trivial.CACHE.write_text("")
    _, record = evaluate_bundle(run)
    assert record["trivial"]["accuracy"] == pytest.approx(fit_directly())


def test_tfidf_is_left_out_with_the_reason(
    bundle: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed, record = evaluate_bundle(run, "--split", "train")
    assert record["trivial"] is None
    assert "TF-IDF: these are the sentences that it was trained on." in printed

    monkeypatch.setattr(trivial, "MOST_WORK", 10)
    printed, record = evaluate_bundle(run)
    assert record["trivial"] is None
    assert "sentences takes minutes" in printed

    write_csv(Path("may.csv"), [("i lost my card", "card_lost"), ("rate", "Exchange")])
    shutil.rmtree("data")
    printed, record = evaluate_bundle(run, "--data", "may.csv")
    assert record["no_trivial"] == "the model's training data is not at hand"
    assert f"Not compared with TF-IDF: {record['no_trivial']}." in printed


@pytest.mark.parametrize(
    ("difference", "interval", "expected", "is_advised"),
    [
        (0.0325, [0.0241, 0.0412], "3.25 points better (95 % interval 2.41 to 4.12)", False),
        (0.01, [-0.01, 0.03], "1.00 points better (95 % interval -1.00 to 3.00)", True),
        (0.0, [0.0, 0.0], "level with it (95 % interval 0.00 to 0.00)", True),
        (-0.079, [-0.09, -0.06], "7.90 points worse (95 % interval -9.00 to -6.00)", True),
    ],
)
def test_a_model_that_does_not_beat_tfidf_is_told_what_to_try(
    difference: float,
    interval: list[float],
    expected: str,
    is_advised: bool,
    bundle: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = TrivialRecord("TF-IDF and logistic regression", 60, 0.8755, difference, interval)

    def beside(result: Evaluation, *arguments: Any) -> Evaluation:
        return replace(result, trivial=entry)

    monkeypatch.setattr(trivial, "beside", beside)
    printed, _ = evaluate_bundle(run)
    report = Path("r/report.md").read_text()
    for text in (printed, report):
        assert f"regression: 87.55 %; this model is {expected}." in text
        assert ("configs/recommended/" in text) == is_advised
        assert ("It does worse than" in text) == (interval[1] < 0)


def test_few_rows_are_named_before_any_other_advice(
    bundle: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = TrivialRecord("TF-IDF", 900, 0.9586, 0.0345, [-0.0069, 0.069])

    def beside(result: Evaluation, *arguments: Any) -> Evaluation:
        return replace(result, rows=145, trivial=entry)

    monkeypatch.setattr(trivial, "beside", beside)
    printed, _ = evaluate_bundle(run)
    for text in (printed, Path("r/report.md").read_text()):
        too_few = text.index("145 test sentences are too few to show that it is better")
        mistakes = text.index("this model makes 1 mistake on them, TF-IDF makes 6 mistakes.")
        more = text.index("More test sentences would tell.")
        assert too_few < mistakes < more < text.index("configs/recommended/")
        assert "is not shown to be better" not in text
