"""The policy of a bundle from training to `python -m bankintent policy`: fitted, kept, evaluated, served."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import BuildOnce, Run, checked_in_this_process, train_config, write_csv, write_yaml

import eval as evaluation
from bankintent import __main__ as verbs
from bankintent import files
from bankintent.bundle import verification
from bankintent.bundle.layout import open_checkpoint
from bankintent.decision.deciding import decide
from bankintent.decision.policy import POLICY, VECTORS
from bankintent.export import policy_swap
from bankintent.inference import choice
from bankintent.inference.policies import read_policy
from bankintent.inference.predictor import Predictor
from bankintent.training import publication

THINGS = ("card", "loan", "parcel", "flight", "recipe", "garden", "engine")
WAYS = (
    "where is my {}",
    "i lost the {}",
    "please send a {}",
    "how long does a {} take",
    "{} broken",
)


OUTSIDE = [(f"tell me a story about {number} dragons", "oos") for number in range(40)]
"""Rows of the source that are none of its intents."""


def sentences(per_intent: int) -> list[tuple[str, str]]:
    """Sentences of seven intents, each about one thing."""
    pairs = []
    for thing in THINGS:
        for number in range(per_intent):
            way = WAYS[number % len(WAYS)].format(thing)
            pairs.append((f"{way} {number}", f"ask_{thing}"))
    return pairs


def train(
    folder: Path, model: Path, per_intent: int, regime: str = "lora", **settings: Any
) -> None:
    """Make `data/` and `bundle/` in a folder."""
    import etl
    import multiregime

    with pytest.MonkeyPatch.context() as patch, checked_in_this_process():
        patch.chdir(folder)
        source = write_csv(folder / "small.csv", sentences(per_intent) + OUTSIDE)
        values = {"dataset_name": str(source), "output_dir": "data", "val_split": 0.3}
        values["out_of_scope_labels"] = ["oos"]
        etl.main(write_yaml(folder / "data.yaml", **values))
        config = train_config(
            folder / "train.yaml",
            model,
            Path("data"),
            Path("bundle"),
            **{"epochs": 3, "lr": 5e-3, "batch_size": 32, "head_init": "probe", **settings},
        )
        multiregime.main(config, regime=regime)


@pytest.fixture(scope="session")
def judged(tiny_bert: Path, build_once: BuildOnce) -> Path:
    """A folder with `data/` and `bundle/`, whose validation rows are enough for a policy."""
    return build_once("judged", lambda folder: train(folder, tiny_bert, 70))


@pytest.fixture
def confident(judged: Path, tmp_path: Path) -> Path:
    """A copy of that bundle, with its data in the same folder, for this test alone."""
    shutil.copytree(judged, tmp_path, dirs_exist_ok=True)
    return tmp_path / "bundle"


def read(bundle: Path) -> Any:
    return json.loads((bundle / POLICY).read_text())


def set_policy(run: Run, bundle: Path, *settings: str) -> Any:
    words: list[object] = ["--model-dir", bundle]
    for setting in settings:
        words += ["--set", setting]
    return run(verbs.policy, *words)


def test_training_fits_a_policy_and_seals_it(confident: Path) -> None:
    record = read(confident)
    assert record["fitted_on"]["validation_rows"] >= 100
    outside = record["fitted_on"]["out_of_scope_rows"]
    assert outside["general"] >= 400
    # Those of train and val: those of test are for evaluation.
    assert 20 <= outside["named"] < len(OUTSIDE)
    # Held-out intents were judged by the vectors of the encoder before it was trained.
    assert record["figures"]["near"]
    assert (confident / VECTORS).is_file()
    assert not verification.verify(confident).faults
    card = (confident / "README.md").read_text()
    assert "## When it answers" in card
    assert "precision of at least 90 %" in card
    assert "| `policy.json`, `decision.safetensors` |" in card
    assert "| `index/` |" in card
    assert "or a refusal" in card
    assert "always answers" in (confident / "merged" / "README.md").read_text()


def test_a_run_with_another_decision_section_is_the_same_run(confident: Path, run: Run) -> None:
    import multiregime

    config = confident.parent / "train.yaml"
    words = ["--config", config, "--regime", "lora", "--set", "decision.target.precision=0.9"]
    result = run(multiregime.main, *words)
    assert result.code == 0, result.err
    assert "already trained" in result.out


def test_a_new_policy_replaces_the_old_one_and_keeps_it(confident: Path, run: Run) -> None:
    before = read(confident)
    weights = (confident / "merged" / "model.safetensors").read_bytes()
    version = open_version(confident)

    result = set_policy(run, confident, "target.precision=0.5", "keep_in_scope=0.9")
    assert result.code == 0, result.err
    assert "precision of at least 50 %" in result.out

    after = read(confident)
    assert after["target"] == {"precision": 0.5, "confidence": 0.95}
    assert after["figures"]["near"] == before["figures"]["near"]
    former = list((confident / policy_swap.FORMER).glob("*.json"))
    assert [json.loads(path.read_text()) for path in former] == [before]
    assert former[0].with_suffix(".safetensors").is_file()
    assert not verification.verify(confident).faults
    # The model is the same, to the byte and by its version.
    assert (confident / "merged" / "model.safetensors").read_bytes() == weights
    assert open_version(confident) != version
    assert not list(confident.parent.glob("bundle.*"))


def test_a_former_policy_is_taken_again(confident: Path, run: Run) -> None:
    before = read(confident)
    first = open_version(confident)
    result = set_policy(run, confident, "target.precision=0.5")
    assert f"--restore {first}" in result.out
    second = open_version(confident)

    result = run(verbs.policy, "--model-dir", confident, "--restore", first)
    assert result.code == 0, result.err
    assert "precision of at least 90 %" in result.out
    assert "restart it to take this one" in " ".join(result.out.split())
    assert read(confident) == before
    assert open_version(confident) == first
    assert not verification.verify(confident).faults
    # The one that it replaces can be taken again in its turn.
    kept = {path.name for path in (confident / policy_swap.FORMER).iterdir()}
    assert kept == {f"{second}.json", f"{second}.safetensors"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--restore", "../../secret"], "has no former policy ../../secret"),
        (["--restore", "abc", "--set", "target.coverage=0.9"], "takes no other settings"),
    ],
)
def test_a_former_policy_that_is_not_there_changes_nothing(
    confident: Path, run: Run, words: list[str], expected: str
) -> None:
    before = (confident / "manifest.json").read_bytes()
    result = run(verbs.policy, "--model-dir", confident, *words)
    assert expected in result.one_line_error()
    assert (confident / "manifest.json").read_bytes() == before


def test_a_former_policy_that_was_changed_is_not_taken(confident: Path, run: Run) -> None:
    first = open_version(confident)
    set_policy(run, confident, "target.precision=0.5")
    second = open_version(confident)
    former = confident / policy_swap.FORMER / f"{first}.json"
    former.write_text(former.read_text() + " ")

    result = run(verbs.policy, "--model-dir", confident, "--restore", first)
    assert "was changed since the bundle was published" in result.one_line_error()
    assert open_version(confident) == second


def open_version(bundle: Path) -> str:
    checkpoint = open_checkpoint(bundle)
    policy = read_policy(checkpoint.root, checkpoint.manifest, checkpoint.labels)
    assert policy is not None
    return policy.version


@pytest.mark.parametrize("target", ["coverage=0.8", "wrong=10"])
def test_coverage_and_costs_are_targets_too(confident: Path, run: Run, target: str) -> None:
    more = ["target.handover=1"] if target.startswith("wrong") else []
    result = set_policy(run, confident, f"target.{target}", *more)
    assert result.code == 0, result.err
    assert read(confident)["thresholds"]["shared"] >= 0


def test_a_promise_that_the_rows_do_not_allow_changes_nothing(confident: Path, run: Run) -> None:
    before = (confident / POLICY).read_bytes()
    line = set_policy(run, confident, "target.precision=0.9999").one_line_error()
    assert "no threshold promises precision 0.9999" in line
    assert (confident / POLICY).read_bytes() == before
    assert not verification.verify(confident).faults


def test_a_plain_checkpoint_has_no_policy_to_change(confident: Path, run: Run) -> None:
    plain = confident.parent / "plain"
    shutil.copytree(confident / "merged", plain)
    assert "is no bundle" in set_policy(run, plain).one_line_error()


def test_a_policy_for_other_data_is_refused(confident: Path, run: Run) -> None:
    other = confident.parent / "other"
    shutil.copytree(confident.parent / "data", other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["data_hash"] = "0" * 64
    (other / "manifest.json").write_text(json.dumps(manifest))
    line = set_policy(run, confident, f"data_dir={other}").one_line_error()
    assert "does not hold the data" in line


def test_few_validation_rows_give_no_policy_and_the_reason(
    tiny_bert: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path, tiny_bert, 10, epochs=1)
    assert "are too few (at least 100)" in capsys.readouterr().out
    assert not (tmp_path / "bundle" / POLICY).exists()
    line = set_policy(run, tmp_path / "bundle").one_line_error()
    assert "too few" in line


class Killed(Exception):
    """Ends a run in the middle."""


def test_few_validation_rows_are_joined_by_training_rows_out_of_fold(
    tiny_bert: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def die(*_: object) -> None:
        raise Killed

    settings = {"decision": {"target": {"precision": 0.5}}}
    with monkeypatch.context() as patch:
        patch.setattr(publication, "publish_bundle", die)
        with pytest.raises(Killed):
            train(tmp_path, tiny_bert, 30, "head-only", **settings)
    assert "fold 5 of 5" in capsys.readouterr().out

    train(tmp_path, tiny_bert, 30, "head-only", **settings)
    out = " ".join(capsys.readouterr().out.split())
    assert "fold 5 of 5" not in out
    assert "cross-fitted" in out

    record = read(tmp_path / "bundle")
    validation = pq.read_table(tmp_path / "data/val.parquet").num_rows
    train_rows = pq.read_table(tmp_path / "data/train.parquet").num_rows
    assert record["fitted_on"]["cross_fitted_rows"] == train_rows
    assert record["promise"]["rows"] == validation + train_rows
    assert validation < 100 <= validation + train_rows
    assert record["vectors"] is None
    assert "cross-fitted" in (tmp_path / "bundle/README.md").read_text()


def test_who_wants_no_further_trainings_has_no_policy(
    tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path, tiny_bert, 30, "head-only", epochs=1, decision={"cross_fit": "never"})
    out = capsys.readouterr().out
    assert "cross_fit is never" in " ".join(out.split())
    assert "fold 1" not in out
    assert not (tmp_path / "bundle" / POLICY).exists()


def test_null_turns_the_policy_off(tiny_bert: Path, tmp_path: Path) -> None:
    train(tmp_path, tiny_bert, 70, epochs=1, decision=None, explain={"index": False})
    assert not (tmp_path / "bundle" / POLICY).exists()


def test_eval_says_what_the_policy_means_on_test(confident: Path, run: Run) -> None:
    result = run(evaluation.main, "--checkpoint-path", confident)
    assert result.code == 0, result.err
    assert "precision of at least 90 %" in result.out

    folder = Path("artifacts/evals/bundle")
    report = json.loads((folder / "metrics.json").read_text())
    measured = report["policy"]
    outside = report["out_of_scope"]
    assert 1 <= outside["figures"]["out_of_scope"] < 20
    assert 0 <= outside["figures"]["auroc"]["value"] <= 1
    assert "out-of-scope sentences" in " ".join(result.out.split())
    rows = measured["answered"] + sum(measured["refused"].values())
    table = pq.read_table(folder / "predictions.parquet").to_pandas()
    assert rows == len(table)
    assert (table["decision"] == "answer").sum() == measured["answered"]
    assert "## Answers and refusals" in (folder / "report.md").read_text()


def test_every_runtime_decides_as_evaluation_does(confident: Path) -> None:
    checkpoint = open_checkpoint(confident)
    policy = read_policy(checkpoint.root, checkpoint.manifest, checkpoint.labels)
    texts = [text for text, _ in sentences(6)] + ["what is the weather in paris", "tell me a joke"]
    outputs = Predictor.load(checkpoint).outputs(texts)
    expected = decide(outputs.logits, outputs.features, policy)

    runtime = choice.find(confident, "torch", threads=1).load()
    assert runtime.policy is not None
    served = runtime.outputs(runtime.tokenize(texts))
    decisions = decide(served.logits, served.features, runtime.policy)
    np.testing.assert_allclose(decisions.scores, expected.scores, atol=1e-4)
    assert (decisions.reasons == expected.reasons).all()


def test_a_damaged_policy_is_replaced_and_not_kept(confident: Path, run: Run) -> None:
    (confident / POLICY).write_text("{")
    result = set_policy(run, confident, "target.precision=0.5")
    assert result.code == 0, result.err
    said = " ".join(result.out.split())
    assert "the former policy was damaged and is not kept" in said
    assert not (confident / policy_swap.FORMER).exists()
    assert not verification.verify(confident).faults


def test_a_link_in_place_of_the_policy_is_replaced(confident: Path, run: Run) -> None:
    secret = confident.with_name("secret")
    secret.write_text("a secret")
    (confident / POLICY).unlink()
    (confident / POLICY).symlink_to(secret)
    result = set_policy(run, confident, "target.precision=0.5")
    assert result.code == 0, result.err
    assert secret.read_text() == "a secret"
    assert not (confident / POLICY).is_symlink()
    assert not verification.verify(confident).faults


@pytest.mark.parametrize("name", ["README.md.bak", "metrics.json", "policies"])
def test_a_new_policy_does_not_seal_over_damage(confident: Path, run: Run, name: str) -> None:
    (confident / name).write_text("changed")
    before = (confident / POLICY).read_bytes()
    line = set_policy(run, confident, "target.precision=0.5").one_line_error()
    assert f"{name} was " in line
    assert (confident / POLICY).read_bytes() == before


def test_a_link_to_a_folder_is_not_sealed(confident: Path, run: Run) -> None:
    elsewhere = confident.with_name("elsewhere")
    elsewhere.mkdir()
    (confident / policy_swap.FORMER).symlink_to(elsewhere)
    assert "policies is a link" in set_policy(run, confident).one_line_error()
    assert not list(elsewhere.iterdir())


def test_the_same_policy_again_is_not_written_again(confident: Path, run: Run) -> None:
    assert set_policy(run, confident, "target.precision=0.5").code == 0
    former = sorted((confident / policy_swap.FORMER).iterdir())
    result = set_policy(run, confident, "target.precision=0.5")
    assert "had this policy already" in result.out
    assert sorted((confident / policy_swap.FORMER).iterdir()) == former


def test_a_bundle_is_named_by_its_merged_model_or_by_a_link(confident: Path, run: Run) -> None:
    link = confident.with_name("a link")
    link.symlink_to(confident)
    assert set_policy(run, confident / "merged", "target.precision=0.5").code == 0
    assert set_policy(run, link, "target.precision=0.6").code == 0
    assert link.is_symlink()
    assert len(list((confident / policy_swap.FORMER).glob("*.json"))) == 2
    assert not verification.verify(confident).faults


def test_two_policies_at_once_are_refused_before_anything_is_computed(
    confident: Path, run: Run
) -> None:
    with files.exclusive(confident):
        line = set_policy(run, confident).one_line_error()
    assert "is being written by another process" in line


def test_a_server_goes_on_with_the_policy_that_it_has_read(confident: Path, run: Run) -> None:
    runtime = choice.find(confident, "torch", threads=1).load()
    assert runtime.policy is not None
    version = runtime.policy.version
    assert set_policy(run, confident, "target.precision=0.5").code == 0
    assert runtime.policy.version == version
    assert len(runtime.outputs(runtime.tokenize(["where is my card"])).logits) == 1
    assert open_version(confident) != version
