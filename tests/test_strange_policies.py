"""Policies of strangers' bundles: each is refused in one line when it is read, or decides."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults.records import seal_again
from policy_fixtures import make_geometry, make_policy, make_record, put_policy
from safetensors.numpy import save_file
from serving_fixtures import LABELS

from bankintent import files
from bankintent.bundle import layout
from bankintent.decision.deciding import REASONS, Reason, decide
from bankintent.decision.gaussian import Gaussians
from bankintent.decision.policy import POLICY, VECTORS, Policy, ScopeRule, Temperature, Thresholds
from bankintent.decision.vectors import to_arrays
from bankintent.decision.wording import describe
from bankintent.errors import ModelError
from bankintent.inference.policies import read_policy
from bankintent.inference.predicted import Predicted
from bankintent.inference.runtime import Outputs

WIDTH = 6


@pytest.fixture
def bundle(served_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the tiny bundle, for this test alone."""
    return Path(shutil.copytree(served_bundle, tmp_path / "tiny"))


def read(bundle: Path) -> Policy:
    checkpoint = layout.open_checkpoint(bundle)
    policy = read_policy(bundle, checkpoint.manifest, checkpoint.labels)
    assert policy is not None
    return policy


def refusal(bundle: Path) -> str:
    """The one line in which the policy is refused."""
    with pytest.raises(ModelError) as caught:
        read(bundle)
    line = str(caught.value)
    assert "\n" not in line
    return line


def whole(**changes: Any) -> dict[str, Any]:
    """The arrays of a policy with Gaussians, some of them changed; None leaves one out."""
    gaussians = Gaussians(
        mean=np.zeros(WIDTH, np.float32),
        whitening=np.eye(WIDTH, dtype=np.float32),
        centres=np.eye(len(LABELS), WIDTH, dtype=np.float32),
        background=np.eye(WIDTH, dtype=np.float32),
        normalised=True,
    )
    arrays = to_arrays(make_geometry(np.eye(len(LABELS), WIDTH), gaussians)) | changes
    return {name: array for name, array in arrays.items() if array is not None}


def put_arrays(bundle: Path, arrays: dict[str, Any], score: str = "nearest") -> None:
    save_file(arrays, bundle / VECTORS)
    rule = ScopeRule({score: 1.0}, threshold=-100.0)
    digest = files.sha256(bundle / VECTORS)
    put_policy(bundle, make_record(LABELS, out_of_scope=rule, vectors=digest))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"thresholds": Thresholds(0.7, {"no_intent": 0.5})}, "does not have (no_intent)"),
        ({"out_of_scope": ScopeRule({}, 1.0)}, "names no score"),
        ({"out_of_scope": ScopeRule({"max_logit": 1e300}, 1.0)}, "beyond 1e+12"),
        ({"temperature": Temperature(0.0, own=1e300)}, "beyond 1e+12"),
        ({"out_of_scope": ScopeRule({"mahalanobis": 1.0}, 1.0)}, "needs decision.safetensors"),
    ],
)
def test_a_policy_that_cannot_decide_is_refused(
    bundle: Path, changes: dict[str, Any], words: str
) -> None:
    put_policy(bundle, make_record(LABELS, **changes))
    assert words in refusal(bundle)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "\0",
        "[" * 5000,
        '{"format": 1, "format": ' + "9" * 5000 + "}",
        b"\xff\xfe".decode("latin-1"),
    ],
)
def test_a_file_that_is_no_policy_is_refused(bundle: Path, text: str) -> None:
    (bundle / POLICY).write_text(text)
    seal_again(bundle)
    assert "is not what was fitted" in refusal(bundle)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("target", '{"precision": NaN}'),
        ("target", '{"precision": "high"}'),
        ("target", '{"coverage": null}'),
        ("target", "[" * 500 + "]" * 500),
        ("promise", '{"coverage": 1e999}'),
        ("promise", '{"rows": 0}'),
        ("promise", '{"precision_interval": [0.5]}'),
        ("promise", '{"refused": {"out_of_scope": "many"}}'),
        ("figures", '{"near": {"max_logit": {"auroc": 0.5}}}'),
        ("figures", '{"near": {"max_logit": {"auroc": 0.5, "share": 7}}}'),
        ("figures", '{"out_of_scope": [1]}'),
        ("labels_hash", '"\\ud800"'),
    ],
)
def test_what_people_are_told_must_be_what_it_seems(bundle: Path, key: str, value: str) -> None:
    record = json.loads(make_record(LABELS).to_json())
    record[key] = "HERE"
    (bundle / POLICY).write_text(json.dumps(record).replace('"HERE"', value))
    seal_again(bundle)
    assert "is not what was fitted" in refusal(bundle)


def test_a_record_that_lacks_its_words_is_told_without_them() -> None:
    lines = describe(make_record(LABELS, target={}, promise={}))
    assert lines == ["target: not recorded", "out of scope by max_logit"]
    lines = describe(make_record(LABELS, promise={"rows": 10, "coverage": 0.5, "refused": {}}))
    assert "answers 50.00 % of 10 validation rows" in lines


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (whole(prototypes=np.zeros(len(LABELS))), "no list of vectors"),
        (whole(prototypes=np.zeros((len(LABELS), 2, 2))), "no list of vectors"),
        (whole(prototypes=np.full((len(LABELS), WIDTH), np.nan)), "not of length 1"),
        (whole(prototypes=np.full((len(LABELS), WIDTH), 1e38)), "not of length 1"),
        (whole(prototype_labels=np.zeros((len(LABELS), 1))), "no list of vectors"),
        (whole(prototype_labels=np.array([0, 1, 2, 3, 3])), "not those of the labels"),
        (whole(prototype_labels=None), "holds no prototypes"),
        (whole(mean=None), "its mean"),
        (whole(mean=np.full(WIDTH, 1e300)), "beyond 1e+09"),
        (whole(centres=np.full((len(LABELS), WIDTH), np.inf)), "beyond 1e+09"),
        (whole(background=np.eye(WIDTH + 1)), "its background"),
        ({"x": np.zeros(1)}, "holds no prototypes"),
    ],
)
def test_arrays_that_are_not_those_of_a_policy_are_refused(
    bundle: Path, arrays: dict[str, Any], words: str
) -> None:
    put_arrays(bundle, arrays)
    assert words in refusal(bundle)


@pytest.mark.parametrize(
    "content", [b"", b"x" * 100, b"\xff" * 8, b"\x08" + b"\0" * 7 + b"{}      "]
)
def test_a_file_that_holds_no_arrays_is_refused(bundle: Path, content: bytes) -> None:
    (bundle / VECTORS).write_bytes(content)
    put_policy(bundle, make_record(LABELS, vectors=files.sha256_bytes(content)))
    assert VECTORS in refusal(bundle)


def test_a_type_that_numpy_lacks_is_refused(bundle: Path) -> None:
    import torch
    from safetensors.torch import save_file as save_tensors

    save_tensors({"prototypes": torch.zeros(5, 6, dtype=torch.float8_e5m2)}, bundle / VECTORS)
    put_policy(bundle, make_record(LABELS, vectors=files.sha256(bundle / VECTORS)))
    assert VECTORS in refusal(bundle)


@pytest.mark.parametrize("score", ["mahalanobis", "relative_mahalanobis_normalised"])
def test_a_score_without_its_gaussians_is_refused(bundle: Path, score: str) -> None:
    put_arrays(bundle, whole(normalised=None), score)
    assert f"lacks what the score {score} needs" in refusal(bundle)


@pytest.mark.parametrize("score", ["nearest", "mahalanobis", "relative_mahalanobis"])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e15])
def test_prototypes_without_a_direction_decide(bundle: Path, score: str, scale: float) -> None:
    put_arrays(bundle, whole(prototypes=np.zeros((len(LABELS), WIDTH))), score)
    features = np.full((3, WIDTH), scale, np.float32)
    check(decide(np.eye(3, len(LABELS), dtype=np.float32), features, read(bundle)))


def test_features_of_another_width_are_refused_by_an_evaluation(bundle: Path) -> None:
    put_arrays(bundle, whole())
    outputs = Outputs(np.zeros((2, len(LABELS)), np.float32), np.zeros((2, 3), np.float32))
    with pytest.raises(ModelError, match="needs features of 6 numbers, and the model gives 3"):
        Predicted.of_checkpoint(outputs, layout.open_checkpoint(bundle))


def check(decisions: Any) -> None:
    """What holds of every answer."""
    probabilities = decisions.probabilities
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-9)
    assert (decisions.margins >= 0).all()
    for row in range(len(decisions)):
        decision = decisions.of(row)
        assert 0 <= decision.score <= 1
        assert (decision.reason is Reason.NONE) == (decision.verdict == "answer")


ODD_LOGITS = {
    "ties": np.array([[2, 2, 1], [0, 5, 5]]),
    "all equal": np.zeros((4, 3)),
    "huge": np.array([[1e4, -1e4, 0], [-1e4, -1e4, -1e4]]),
    "the largest": np.array([[3e38, -3e38, 3e38]]),
    "tiny": np.array([[1e-40, 0, -1e-40]]),
}


@pytest.mark.parametrize("name", ODD_LOGITS)
@pytest.mark.parametrize("score", ["max_softmax", "max_logit", "energy"])
@pytest.mark.parametrize("bias", [-5.0, 0.0, 5.0, 1e12])
def test_odd_logits_get_scores_that_are_shares(name: str, score: str, bias: float) -> None:
    logits = ODD_LOGITS[name].astype(np.float32)
    rule = ScopeRule({score: 1.0}, threshold=0.1)
    policy = make_policy(list("abc"), out_of_scope=rule, temperature=Temperature(bias))
    decisions = decide(logits, None, policy)
    check(decisions)
    assert (decisions.labels == logits.argmax(axis=1)).all()


@pytest.mark.parametrize("intents", [1, 2, 2000])
def test_any_number_of_intents_is_decided_on(intents: int) -> None:
    names = [f"intent {number}" for number in range(intents)]
    record = make_record(names, temperature=Temperature(0.0, own=1.0, other=-1.0))
    policy = Policy(record, tuple(names), make_geometry(np.eye(intents, 4)))
    logits = np.random.default_rng(0).normal(size=(5, intents)).astype(np.float32)
    check(decide(logits, np.ones((5, 4), np.float32), policy))
    check(decide(logits, np.zeros((5, 4), np.float32), policy))


@pytest.mark.parametrize("threshold", [-1.0, 0.0, 1.0, 7.0])
def test_a_threshold_that_is_no_share_answers_all_or_none(threshold: float) -> None:
    policy = make_policy("ab", out_of_scope=None, thresholds=Thresholds(threshold))
    decisions = decide(np.array([[3, 1]], np.float32), None, policy)
    assert decisions.answered.all() == (threshold <= 0)


def test_no_texts_need_no_features() -> None:
    policy = Policy(make_record("ab"), ("a", "b"), make_geometry(np.eye(2)))
    decisions = decide(np.zeros((0, 2), np.float32), None, policy)
    assert len(decisions) == 0
    assert decisions.probabilities.shape == (0, 2)


def test_a_sum_of_scores_that_is_no_number_is_refused() -> None:
    """A comparison with NaN would let everything pass."""
    geometry = make_geometry(np.eye(2))
    rule = ScopeRule({"nearest": 1.0}, threshold=-2.0)
    policy = Policy(make_record("ab", out_of_scope=rule), ("a", "b"), geometry)
    features = np.array([[math.nan, 1.0]], np.float32)
    decisions = decide(np.array([[9, 1]], np.float32), features, policy)
    assert REASONS[decisions.reasons[0]] is Reason.OUT_OF_SCOPE
