"""References: what each computes against an independent reckoning, what is written, and what is refused."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import NLI_LABELS, REPOSITORY, Run, tiny_nli, write_yaml

import baseline
import eval as evaluate
from bankintent import files, hub, tracking
from bankintent.baselines import references
from bankintent.baselines.references import REFERENCES, Task
from bankintent.config import BaselineConfig, NliSection
from bankintent.configfile import load
from bankintent.corpus.dataset import SplitData
from bankintent.errors import ConfigError, LabelError, ModelError
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


def task(texts: list[str] = TEXTS, train: list[tuple[str, int]] = TRAIN, **settings: Any) -> Task:
    config = BaselineConfig(references=list(REFERENCES), **({"max_length": 32} | settings))
    sentences, labels = zip(*train, strict=True)
    rows = SplitData([str(i) for i in range(len(train))], list(sentences), list(labels))
    return Task(
        config,
        LABELS,
        references.label_texts(LABELS, config.label_texts),
        rows,
        texts,
        lambda done, total: None,
    )


def yaml(model: Path, nli_model: Path, data_dir: str = "data", **more: Any) -> Path:
    settings: dict[str, Any] = {
        "name": "small",
        "references": list(REFERENCES),
        "data_dir": data_dir,
        "model_name": str(model),
    }
    settings |= {
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
    assert (
        run(evaluate.main, "--checkpoint-path", bundle, "--set", "tracking.enabled=false").code == 0
    )
    result = run(baseline.main, "--config", yaml(tiny_bert, nli_model))
    assert result.code == 0, result.err
    expected = json.loads(Path("artifacts/evals/bundle/metrics.json").read_text())
    ids = pq.read_table("artifacts/evals/bundle/predictions.parquet")["id"]
    for name in REFERENCES:
        folder = Path(f"artifacts/evals/small-{name}")
        assert set(files.list_files(folder)) == set(
            files.list_files(Path("artifacts/evals/bundle"))
        )
        found = json.loads((folder / "metrics.json").read_text())
        assert found.pop("reference")["name"] == name
        assert found.keys() == expected.keys()
        for key in ("checkpoint", "data", "metrics", "intervals", "bootstrap"):
            assert found[key].keys() == expected[key].keys()
        for key in ("data", "split", "rows"):
            assert found[key] == expected[key]
        assert pq.read_table(folder / "predictions.parquet")["id"] == ids
        accuracy, (low, high) = found["metrics"]["accuracy"], found["intervals"]["accuracy"]
        row = next(line for line in result.out.splitlines() if line.split()[:1] == [name])
        assert f"{100 * accuracy:.2f} ({100 * low:.2f} to {100 * high:.2f})" in row
        assert "model loaded as" not in (folder / "report.md").read_text()


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
    config = yaml(
        tiny_bert,
        nli_model,
        str(trained / "data"),
        references=["majority", "embedding"],
        split="val",
    )
    assert run(baseline.main, "--config", config).code == 0
    metrics = {f"val_{key}" for key in ("accuracy", "macro_f1", "top3_accuracy", "ece", "nll")} | {
        "seconds"
    }
    for name, entries in (("majority", logged[:4]), ("embedding", logged[4:])):
        folder = Path(f"artifacts/evals/small-{name}-val")
        run_name = (f"small-{name}-eval-val", name, "val")
        assert entries == [run_name, ["majority", "embedding"], metrics, folder]


def test_majority_answers_the_most_frequent_intent_with_the_shares_of_train() -> None:
    answer = REFERENCES["majority"].answer(task())
    assert answer.logits.shape == (len(TEXTS), 3)
    np.testing.assert_allclose(
        np.exp(answer.logits), [[9 / 25, 9 / 25, 7 / 25]] * len(TEXTS), rtol=1e-6
    )
    assert 'always "card_lost"' in answer.about


def test_tfidf_learns_from_train_with_a_strength_chosen_there() -> None:
    steps: list[tuple[int, int]] = []
    wanted = task()
    answer = REFERENCES["tfidf"].answer(
        Task(**(vars(wanted) | {"progress": lambda *step: steps.append(step)}))
    )
    assert answer.logits.argmax(axis=1).tolist() == [0, 1, 2, 1]
    np.testing.assert_allclose(np.exp(answer.logits).sum(axis=1), 1, rtol=1e-5)
    assert "3-fold cross-validation on train" in answer.about
    assert sum(done for done, _ in steps) == steps[0][1]


def test_tfidf_copes_with_one_sentence_and_with_an_intent_that_train_lacks() -> None:
    answer = REFERENCES["tfidf"].answer(task(train=[("my card is gone", 0), ("add money", 2)]))
    assert np.isfinite(answer.logits).all()
    assert set(answer.logits.argmax(axis=1).tolist()) == {0, 2}
    assert "too few to choose" in answer.about


def test_untrained_is_the_random_head_of_its_seed(tiny_bert: Path) -> None:
    first, again, other = (
        REFERENCES["untrained"]
        .answer(task(model_name=str(tiny_bert), seed=seed, batch_size=batch))
        .logits
        for seed, batch in ((1, 2), (1, 64), (2, 64))
    )
    np.testing.assert_allclose(first, again, atol=1e-5)
    assert np.abs(first - other).max() > 1e-3


def test_embedding_is_the_scaled_cosine_of_masked_means(tiny_bert: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = (
        AutoModel.from_pretrained(tiny_bert).eval(),
        AutoTokenizer.from_pretrained(tiny_bert),
    )

    def unit_mean(text: str) -> Any:
        with torch.no_grad():
            mean = (
                model(**tokenizer(text, return_tensors="pt"))
                .last_hidden_state[0]
                .mean(dim=0)
                .numpy()
            )
        return mean / np.linalg.norm(mean)

    said = ["about card lost", "about euros", "about top up"]
    expected = (
        7
        * np.stack([unit_mean(text) for text in TEXTS])
        @ np.stack([unit_mean(text) for text in said]).T
    )
    section = {"template": "about {}", "scale": 7}
    wanted = task(
        model_name=str(tiny_bert),
        embedding=section,
        label_texts={"Exchange": "euros"},
        batch_size=3,
    )
    np.testing.assert_allclose(REFERENCES["embedding"].answer(wanted).logits, expected, atol=1e-4)


@pytest.mark.parametrize("architecture", ["bert", "bart"])
def test_nli_is_the_entailment_logit_of_each_pair_alone_with_only_the_sentence_cut(
    architecture: str, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tiny_nli(tmp_path / "nli", architecture)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    lost = "a card that was lost on the train or stolen or gone today"  # longer than what is left of the longest text
    texts = [*TEXTS, "i lost my card and then " * 20]
    hypotheses = [f"it is {said} ." for said in (lost, "exchange", "top up")]

    def entailed(text: str, hypothesis: str) -> float:
        premise, rest = (
            tokenizer(part, add_special_tokens=False)["input_ids"] for part in (text, hypothesis)
        )
        ids = torch.tensor([[2, *premise[: 32 - len(rest) - 3], 3, *rest, 3]])
        with torch.no_grad():
            return float(model(input_ids=ids).logits[0, NLI_LABELS.index("entailment")])

    expected = [[entailed(text, hypothesis) for hypothesis in hypotheses] for text in texts]
    steps = []
    section = {
        "model_name": str(folder),
        "template": "it is {} .",
        "max_length": 32,
        "batch_size": 4,
    }
    wanted = task(texts, nli=section, label_texts={"card_lost": lost})
    answer = REFERENCES["nli"].answer(
        Task(**(vars(wanted) | {"progress": lambda *step: steps.append(step)}))
    )
    np.testing.assert_allclose(answer.logits, expected, atol=1e-4)
    assert sum(done for done, _ in steps) == steps[0][1] == 15
    assert np.ptp(answer.logits) > 0.1


def test_permuted_nli_labels_give_equal_answers(nli_model: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    order = [2, 0, 1]
    model = AutoModelForSequenceClassification.from_pretrained(nli_model)
    with torch.no_grad():
        for parameter in (model.classifier.weight, model.classifier.bias):
            parameter.copy_(parameter[order].clone())
    names = [NLI_LABELS[i].upper() for i in order]
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: index for index, name in enumerate(names)}
    model.save_pretrained(tmp_path / "permuted")
    AutoTokenizer.from_pretrained(nli_model).save_pretrained(tmp_path / "permuted")
    plain, permuted = (
        REFERENCES["nli"].answer(task(nli={"model_name": str(folder), "max_length": 48})).logits
        for folder in (nli_model, tmp_path / "permuted")
    )
    np.testing.assert_array_equal(plain, permuted)


def test_a_model_without_one_entailment_label_is_refused_with_its_labels(
    tmp_path: Path, tiny_bert: Path
) -> None:
    from bankintent.baselines import zero_shot

    assert zero_shot.entailment_label({0: "not_entailment", 1: "Entailment"}, "m") == 1
    for labels, expected in (
        (("no", "maybe", "yes"), "no entailment label; its labels are no, maybe, yes"),
        (("entailment", "entailed", "neutral"), "more than one entailment label"),
    ):
        folder = tiny_nli(tmp_path / labels[0], labels=labels)
        with pytest.raises(ModelError, match=expected):
            zero_shot.load_nli(NliSection(model_name=str(folder)))
    with pytest.raises(ModelError, match="its labels are LABEL_0, LABEL_1"):
        zero_shot.load_nli(NliSection(model_name=str(tiny_bert)))


def test_an_nli_model_that_is_unusable_is_refused(nli_model: Path, tmp_path: Path) -> None:
    import shutil

    from bankintent.baselines import zero_shot

    with pytest.raises(ModelError, match="max_length 128 is above the 66 positions"):
        zero_shot.load_nli(NliSection(model_name=str(nli_model)))
    section = {
        "model_name": str(nli_model),
        "max_length": 8,
        "template": "the sentence in front of this is {}",
    }
    with pytest.raises(
        ConfigError, match=r"nli.max_length 8 tokens, which leaves none for the sentence"
    ):
        REFERENCES["nli"].answer(task(nli=section))
    broken = shutil.copytree(nli_model, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"not a tensor file")
    with pytest.raises(ModelError, match="broken cannot be loaded"):
        zero_shot.load_nli(NliSection(model_name=str(broken), max_length=32))


def test_label_texts_are_the_names_unless_given_and_must_name_intents() -> None:
    assert references.label_texts(LABELS, {"top_up": "adding money"}) == (
        "card lost",
        "Exchange",
        "adding money",
    )
    with pytest.raises(
        LabelError,
        match=r'"card_los", which is no intent of this data\. Did you mean "card_lost"\?',
    ):
        references.label_texts(LABELS, {"card_los": "x"})


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
    config = yaml(tiny_bert, nli_model, str(trained / "data"), **settings)
    assert expected in run(baseline.main, "--config", config).one_line_error()
    assert not Path("artifacts").exists()


def test_a_folder_that_is_no_report_is_left_alone(
    trained: Path, tiny_bert: Path, nli_model: Path, run: Run
) -> None:
    other = Path("artifacts/evals/small-nli")
    other.mkdir(parents=True)
    (other / "notes.txt").write_text("mine")
    config = yaml(tiny_bert, nli_model, str(trained / "data"), references=["majority", "nli"])
    assert "is no evaluation report" in run(baseline.main, "--config", config).one_line_error()
    assert files.list_files(Path("artifacts")) == ["evals/small-nli/notes.txt"]


def test_the_quickstart_needs_no_hub_and_shipped_configs_name_known_references(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    monkeypatch.setattr(hub, "require_reachable", lambda what, choices: asked.append(what))
    references.require(
        load(BaselineConfig, REPOSITORY / "configs" / "quickstart" / "baseline.yaml")
    )
    assert not asked
    references.require(load(BaselineConfig, REPOSITORY / "configs" / "baseline.yaml"))
    assert asked == ['the model "facebook/bart-large-mnli"']
