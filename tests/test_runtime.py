"""Runtimes: which is chosen, what it loads and verifies, and that its answers are the model's."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import NO_BF16
from policy_fixtures import documented, make_record, put_policy, save_vectors
from servers import environment
from serving_fixtures import (
    LABELS,
    MAX_LENGTH,
    TEXTS,
    write_exported_bundle,
    write_tiny_model,
)

from bankintent import files
from bankintent.bundle import layout
from bankintent.decision.deciding import Decisions, decide
from bankintent.decision.policy import POLICY, VECTORS, PolicyRecord, ScopeRule
from bankintent.errors import ModelError
from bankintent.inference import choice, engines
from bankintent.inference import exported_runtime as exported
from bankintent.inference.choice import find
from bankintent.inference.exported_runtime import KINDS, ExportedModel
from bankintent.inference.policies import read_policy
from bankintent.inference.runtime import ModelFacts, Runtime
from bankintent.labels import LabelSchema

EVERYTHING = [*TEXTS, "x", "Ünïcode £5 — done?", "card " * 100, "a\tb\nc", "\u200b my  card"]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_exported_bundle(tmp_path_factory.mktemp("exported") / "tiny")


@pytest.fixture
def bundle(original: Path, tmp_path: Path) -> Path:
    """A copy of the exported bundle for this test alone."""
    return Path(shutil.copytree(original, tmp_path / "tiny"))


def reseal(bundle: Path, change: Callable[[dict[str, Any]], None] = lambda manifest: None) -> None:
    """Make a changed bundle whole again."""
    manifest = json.loads((bundle / layout.MANIFEST).read_text())
    (bundle / layout.MANIFEST).unlink()
    del manifest["files"]
    change(manifest)
    layout.seal(bundle, manifest)


def test_every_runtime_gives_the_answers_of_the_model(original: Path) -> None:
    assert {"onnx", "onnx-int8"} <= set(layout.read_manifest(original).formats)
    reference = find(original, "torch", threads=1).load()
    reference_items = reference.tokenize(EVERYTHING)
    expected = np.array([reference.logits([item])[0] for item in reference_items])

    for name in ("onnx", "onnx-int8"):
        model = find(original, name, threads=2).load()
        items = model.tokenize(EVERYTHING)
        assert items == reference_items

        logits = model.logits(items)
        difference = np.abs(logits - expected)
        if name == "onnx":
            assert difference.max() < 1e-3
        else:
            assert difference.mean() < 0.05 * np.abs(expected).mean()

        alone = np.concatenate([model.logits([item]) for item in items])
        np.testing.assert_allclose(logits, alone, atol=1e-4)
        assert facts_of_model(model) == facts_of_model(reference)


def facts_of_model(runtime: Runtime) -> ModelFacts:
    """The facts that do not depend on the runtime."""
    return replace(runtime.facts, runtime="", folder=Path())


def test_auto_takes_the_fastest_that_was_verified(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = find(bundle, threads=1).load().facts
    assert facts.runtime.startswith("onnxruntime ")
    assert facts.runtime.endswith(", int8, cpu, 1 thread")

    reseal(bundle, lambda manifest: manifest["parity"]["formats"].pop("onnx-int8"))
    monkeypatch.setitem(KINDS, "openvino", exported.Kind("no_such_engine", "model.onnx", "bf16"))
    assert ", float32, cpu, 2 threads" in find(bundle, threads=2).load().facts.runtime

    reseal(bundle, lambda manifest: manifest["parity"].pop("formats"))
    assert find(bundle, threads=1).load().facts.runtime.startswith("torch ")


def test_auto_takes_torch_where_it_has_a_gpu(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "torch_has_gpu", lambda: True)
    assert find(bundle, threads=1).load().facts.runtime.startswith("torch ")

    # torch computes merged/ alone.
    shutil.rmtree(bundle / "merged")
    assert find(bundle, threads=1).load().facts.runtime.startswith("onnxruntime ")


@pytest.mark.parametrize("part", ["", "merged", "onnx"])
def test_a_bundle_and_its_folders_are_the_same_model(original: Path, part: str) -> None:
    assert find(original / part, threads=1).load().facts == find(original, threads=1).load().facts


def test_only_what_is_loaded_is_needed_and_verified(bundle: Path) -> None:
    (bundle / "merged" / "model.safetensors").write_bytes(b"broken")
    (bundle / "onnx" / "model.onnx").write_bytes(b"broken")
    assert find(bundle, "onnx-int8", threads=1).load().tokenize(["a card"])
    with pytest.raises(ModelError, match=r"onnx/model\.onnx was changed"):
        find(bundle, "onnx")
    with pytest.raises(ModelError, match=r"merged/model\.safetensors was changed"):
        find(bundle, "torch")

    shutil.rmtree(bundle / "merged")
    assert find(bundle, "auto", threads=1).load().facts.labels == LABELS

    tokenizer = bundle / "onnx" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    with pytest.raises(ModelError, match=r"tokenizer\.json was changed"):
        find(bundle, "auto")

    (bundle / "labels.json").unlink()
    with pytest.raises(ModelError, match=r"labels\.json is missing"):
        find(bundle, "auto")


def test_a_runtime_that_is_missing_is_named(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = write_tiny_model(tmp_path / "plain")
    assert find(plain, threads=1).load().facts.runtime.startswith("torch ")
    with pytest.raises(ModelError, match=r"no format that was verified for onnx .*runtime: auto"):
        find(plain, "onnx")

    def fail(manifest: dict[str, Any]) -> None:
        del manifest["parity"]["formats"]["onnx-int8"]
        manifest["parity"]["left_out"] = {"onnx-int8": "it loses 3.00 points of accuracy"}

    reseal(bundle, fail)
    with pytest.raises(ModelError, match=r"it loses 3\.00 points"):
        find(bundle, "onnx-int8")

    monkeypatch.setitem(KINDS, "onnx", exported.Kind("no_such_engine", "model.onnx", "float32"))
    with pytest.raises(ModelError, match="no_such_engine is not installed"):
        find(bundle, "onnx")


def test_a_machine_that_computes_otherwise_falls_back_or_says_so(
    bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = bundle / "onnx" / "runtime.json"
    settings = json.loads(path.read_text())
    settings["probes"]["onnx-int8"][0][0] += 5
    path.write_text(json.dumps(settings))
    reseal(bundle)

    with pytest.raises(ModelError, match="onnx-int8 gives other answers on this machine"):
        find(bundle, "onnx-int8").load()
    assert ", int8," not in find(bundle, threads=1).load().facts.runtime
    assert "onnx-int8 gives other answers" in caplog.text


def test_a_cpu_without_bf16_is_no_place_for_openvino(
    original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino = engines.import_openvino()
    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32"])
    with pytest.raises(engines.Unfit, match="no bf16"):
        ExportedModel(original / "onnx", KINDS["openvino"], 1)


def test_openvino_runs_calls_of_several_threads_at_once(original: Path) -> None:
    core = engines.import_openvino().Core()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip(NO_BF16)  # the test above says what happens there

    check_parallel(ExportedModel(original / "onnx", KINDS["openvino"], 2, workers=2), atol=0.05)


def test_onnxruntime_runs_calls_of_several_threads_at_once(original: Path) -> None:
    check_parallel(ExportedModel(original / "onnx", KINDS["onnx"], 2, workers=2), atol=1e-4)


def check_parallel(model: ExportedModel, atol: float) -> None:
    assert model.workers == 2
    items = model.tokenize(TEXTS)
    expected = [model.logits([item])[0] for item in items]
    answers: dict[int, Any] = {}

    def ask(half: int) -> None:
        answers[half] = np.concatenate([model.logits([item]) for item in items[half::2]])

    threads = [threading.Thread(target=ask, args=(half,)) for half in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for half in (0, 1):
        np.testing.assert_allclose(answers[half], expected[half::2], atol=atol)


def test_a_tokenizer_that_pads_on_the_left_is_followed(bundle: Path) -> None:
    path = bundle / "onnx" / "runtime.json"
    right = ExportedModel(bundle / "onnx", KINDS["onnx"], 1)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"padding_side": "left"}))
    left = ExportedModel(bundle / "onnx", KINDS["onnx"], 1)

    items = left.tokenize(["my card has not arrived", "pin"])
    length = len(items[1])
    for name, padding in right.settings.padding.items():
        short_left = left.feeds(items)[name][1].tolist()
        short_right = right.feeds(items)[name][1].tolist()
        assert short_left[-length:] == short_right[:length]
        assert set(short_left[:-length]) == {padding}


def test_serving_a_format_imports_neither_torch_nor_transformers_nor_pandas(
    original: Path, tmp_path: Path
) -> None:
    program = """
import sys
from fastapi.testclient import TestClient
import backend
with TestClient(backend.app) as client:
    while client.get("/health/ready").status_code != 200:
        pass
    body = {"text": ["my card has not arrived", "pin " * 100]}
    answers = client.post("/predict/", json=body).json()
    assert answers[0]["label"], answers
    assert [answer["truncated"] for answer in answers] == [False, True], answers
    print(client.get("/info").json()["runtime"])
heavy = {"torch", "transformers", "pandas", "sklearn", "scipy", "pyarrow", "mlflow"}
print(sorted(heavy & set(sys.modules)))
"""
    passed = layout.read_manifest(original).formats
    for name in sorted({"onnx-int8", "openvino"} & set(passed)):
        (tmp_path / "serve.yaml").write_text(f"runtime: {name}\nthreads: 1\n")
        env = environment(SERVE_CONFIG=str(tmp_path / "serve.yaml"), MODEL_DIR=str(original))
        process = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env=env, cwd=tmp_path
        )
        assert process.returncode == 0, process.stderr
        engine, imported = process.stdout.strip().splitlines()
        assert engine.startswith(KINDS[name].engine)
        assert imported == "[]"


def test_openvino_is_imported_without_calling_out(tmp_path: Path) -> None:
    program = """
import sys
seen = set()
sys.addaudithook(lambda event, _: seen.add(event))
from bankintent.inference.engines import import_openvino
assert import_openvino().Core().available_devices
assert import_openvino() is import_openvino()
calls = {"os.fork", "os.posix_spawn", "subprocess.Popen", "socket.connect", "urllib.Request"}
print(sorted(seen & calls))
unwanted = ("openvino_telemetry", "openvino.tools.ovc")
print([name for name in sys.modules if name.startswith(unwanted)])
"""
    home = tmp_path / "home"
    home.mkdir()
    env = environment(HOME=str(home))
    env.pop("CI", None)  # its telemetry is silent in CI
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=env, cwd=tmp_path
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.split("\n")[:2] == ["[]", "[]"]
    assert not list(home.iterdir())


def test_onnxruntime_reports_to_nobody(tmp_path: Path) -> None:
    """Its telemetry leaves an id in the home folder when it is imported."""
    program = """
from bankintent.inference.engines import import_onnxruntime
assert import_onnxruntime().get_available_providers()
"""
    home = tmp_path / "home"
    home.mkdir()
    env = environment(HOME=str(home))
    for name in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "CI"):
        env.pop(name, None)
    subprocess.run([sys.executable, "-c", program], check=True, env=env, cwd=tmp_path)
    assert not list(home.iterdir())


def test_long_texts_are_cut_where_the_model_ends(original: Path) -> None:
    model = find(original, "onnx", threads=1).load()
    cut, whole = model.tokenize(["card " * 100, "card " * 5])
    assert len(cut) == model.facts.max_length == MAX_LENGTH
    assert cut.truncated
    assert not whole.truncated


# Policies


def decided(runtime: Runtime) -> Decisions:
    outputs = runtime.outputs(runtime.tokenize(EVERYTHING))
    return decide(outputs.logits, outputs.features, runtime.policy)


def with_prototypes(bundle: Path, **changes: Any) -> PolicyRecord:
    """Put a policy of one vector for each intent into a bundle."""
    runtime = find(bundle, "torch", threads=1).load()
    width = runtime.outputs(runtime.tokenize(["pin"])).features
    assert width is not None
    vectors = np.random.default_rng(0).normal(size=(len(LABELS), width.shape[1]))
    save_vectors(bundle, vectors)
    sha256 = files.sha256(bundle / VECTORS)
    rule = ScopeRule({"nearest": 1.0}, threshold=0.0)
    record = make_record(LABELS, **{"vectors": sha256, "out_of_scope": rule, **changes})
    put_policy(bundle, record)
    return record


def test_every_runtime_reads_the_policy_of_its_bundle(bundle: Path) -> None:
    assert find(bundle, "torch", threads=1).load().policy is None
    before = decided(find(bundle, "torch", threads=1).load())
    record = with_prototypes(bundle)

    expected = None
    for name in ("torch", "onnx"):
        runtime = find(bundle, name, threads=1).load()
        assert runtime.policy is not None
        assert runtime.policy.version == record.version
        answers = decided(runtime)
        assert set(answers.reasons) != {0}
        # The best intents are those without a policy.
        np.testing.assert_array_equal(answers.labels, before.labels)
        if expected is not None:
            np.testing.assert_allclose(answers.probabilities, expected.probabilities, atol=1e-3)
        expected = answers


def test_the_documented_lines_compute_what_the_runtime_computes(
    original: Path, tmp_path: Path
) -> None:
    runtime = find(original, "onnx", threads=1).load()
    compute = documented("compute", tmp_path)
    for text in ("my card has not arrived", "lost " * 100):
        logits, features = compute(original, text)
        expected = runtime.outputs(runtime.tokenize([text]))
        np.testing.assert_allclose(logits, expected.logits, atol=1e-4)
        np.testing.assert_allclose(features, expected.features, atol=1e-4)


def test_a_policy_that_needs_features_is_not_used_with_a_format_that_gives_none(
    bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with_prototypes(bundle)
    path = bundle / "onnx" / "runtime.json"
    settings = json.loads(path.read_text())
    settings["features"] = 0
    path.write_text(json.dumps(settings))
    reseal(bundle)

    with pytest.raises(ModelError, match=r"onnx of .* is not used: the policy needs features"):
        find(bundle, "onnx").load()
    runtime = find(bundle, threads=1).load()
    assert runtime.facts.runtime.startswith("torch ")
    assert "the policy needs features" in caplog.text
    assert set(decided(runtime).reasons) != {0}

    # Without what torch loads, no answer would be the policy's.
    shutil.rmtree(bundle / "merged")
    with pytest.raises(ModelError, match="neither merged"):
        find(bundle, threads=1).load()


def test_features_of_another_width_are_not_compared(bundle: Path) -> None:
    save_vectors(bundle, np.eye(len(LABELS), 7))
    put_policy(bundle, make_record(LABELS, vectors=files.sha256(bundle / VECTORS)))
    for name in ("torch", "onnx"):
        with pytest.raises(ModelError, match="needs features of 7 numbers"):
            find(bundle, name, threads=1).load()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels_hash": "0"}, "is for a model with other labels"),
        ({"format": 99}, "its format is 99, this version reads 1"),
        (
            {"out_of_scope": {"weights": {"luck": 1.0}, "threshold": 1.0}},
            "its score luck is none of max_softmax",
        ),
        ({"out_of_scope": {"weights": {"nearest": 1.0}, "threshold": 1.0}}, "needs decision"),
        ({"thresholds": {"shared": float("nan"), "per_intent": {}}}, "not finite"),
        ({"temperature": {"bias": float("inf"), "own": 0.0, "other": 0.0}}, "not finite"),
        ({"thresholds": {"shared": "high", "per_intent": {}}}, "is not what was fitted"),
        ({"vectors": "0" * 64}, "decision.safetensors was added|decision.safetensors is missing"),
    ],
)
def test_a_policy_that_could_not_decide_is_refused(
    original: Path, tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    # The model itself is not looked at.
    (tmp_path / layout.MANIFEST).write_text((original / layout.MANIFEST).read_text())
    put_policy(tmp_path, make_record(LABELS))
    values = json.loads((tmp_path / POLICY).read_text()) | change
    (tmp_path / POLICY).write_text(json.dumps(values))
    reseal(tmp_path)
    with pytest.raises(ModelError, match=says):
        read_policy(tmp_path, layout.read_manifest(tmp_path), LabelSchema(LABELS))


def test_a_policy_that_was_changed_or_lost_is_refused(bundle: Path) -> None:
    with_prototypes(bundle)
    save_vectors(bundle, np.eye(len(LABELS)))
    with pytest.raises(ModelError, match=r"decision\.safetensors was changed"):
        find(bundle, threads=1).load()

    reseal(bundle)
    with pytest.raises(ModelError, match=r"decision\.safetensors is not that of its policy"):
        find(bundle, threads=1).load()

    (bundle / POLICY).unlink()
    with pytest.raises(ModelError, match=r"policy\.json is missing"):
        find(bundle, threads=1).load()
