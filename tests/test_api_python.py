"""The Python API: the same answers as over HTTP, errors of one line, no library that is not needed, the page about it."""

import contextlib
import dataclasses
import inspect
import io
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import rich.console
import yaml
from conftest import CARD_LABELS, REPOSITORY, write_csv, write_yaml
from servers import environment
from serving_fixtures import TEXTS
from starlette.testclient import TestClient
from test_readme import shrink
from tiny_models import rows

import bankintent
from bankintent import configfile, console, evaluate, load, train
from bankintent.api import model as api_model
from bankintent.config import DataConfig, LoraSection, ServeConfig, TrainConfig
from bankintent.errors import ConfigError, DataError, ModelError, UserError
from bankintent.inference.runtime import ModelFacts, Outputs, Tokens
from bankintent.serving.app import create_app
from bankintent.serving.service import State

PAGE = REPOSITORY / "docs" / "how-to" / "python.md"
SETTINGS: dict[str, Any] = {"enabled": False}
"""`tracking:` of the runs here."""


@pytest.fixture(scope="module")
def exported(published: Path) -> Path:
    """A bundle with every exported format and an index."""
    return published / "bundle"


@pytest.fixture(scope="module")
def model(exported: Path) -> bankintent.Model:
    return load(exported, threads=1)


def run_python(program: str, folder: Path) -> list[str]:
    """The lines that a program prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment(),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


# Names


def test_every_public_name_is_there_and_documented() -> None:
    assert set(bankintent.__all__) <= set(dir(bankintent))
    for name in set(bankintent.__all__) - {"__version__"}:
        value = getattr(bankintent, name)
        assert inspect.getdoc(value), name
        if not inspect.isclass(value):
            assert "Raises UserError" in (value.__doc__ or ""), name
            continue
        for part, member in inspect.getmembers(value):
            is_public = not part.startswith("_") and name != "UserError"
            if is_public and (callable(member) or isinstance(member, property)):
                assert inspect.getdoc(member), f"{name}.{part}"

    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = bankintent.trian  # type: ignore[attr-defined]
    assert (REPOSITORY / "bankintent" / "py.typed").is_file()


def test_names_are_loaded_when_they_are_used_and_no_library_with_them(tmp_path: Path) -> None:
    program = """
import sys
def libraries():
    names = {name.split(".")[0] for name in sys.modules} - before
    return sorted(names - set(sys.stdlib_module_names) - {"bankintent"})
before = {name.split(".")[0] for name in sys.modules}
import bankintent
print("bankintent.api" in sys.modules, libraries())
from bankintent import Model, Prediction, UserError, etl, evaluate, load, train
print("bankintent.api" in sys.modules, libraries())
"""
    assert run_python(program, tmp_path) == ["False []", "True []"]


def test_an_exported_bundle_answers_without_heavy_libraries(exported: Path, tmp_path: Path) -> None:
    program = f"""
import sys
from bankintent import load
model = load({str(exported)!r}, runtime="onnx", threads=1)
print(model.predict("my card has not arrived").label, model.runtime.split()[0])
assert model.explain("my card has not arrived").neighbours
model.features(["my card", "my pin"]), model.logits("my pin"), model.probabilities("my pin")
heavy = {{"torch", "transformers", "pandas", "sklearn", "scipy", "pyarrow", "mlflow", "gradio"}}
heavy |= {{"fastapi", "starlette", "typer", "datasets", "matplotlib", "openvino"}}
print(sorted(heavy & set(sys.modules)))
"""
    answer, imported = run_python(program, tmp_path)
    assert answer.startswith(tuple(CARD_LABELS.values()))
    assert answer.endswith(" onnxruntime")
    assert imported == "[]"


# Answers


def as_served(prediction: bankintent.Prediction) -> Any:
    """The answer as the API would send it, without the model's name."""
    return json.loads(json.dumps(dataclasses.asdict(prediction)))


@pytest.fixture(scope="module")
def client(served_bundle: Path) -> Iterator[TestClient]:
    """A client of the HTTP API over `served_bundle`."""
    app = create_app(ServeConfig(model_dir=served_bundle, threads=1))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        while app.state.service.state is not State.READY:
            client.get("/health/live")
        yield client


def test_answers_are_those_of_the_api(client: TestClient, served_bundle: Path) -> None:
    own = load(served_bundle, threads=1)
    texts = [*TEXTS[:12], "x", "Ünïcode £5 — done?", "card " * 100, "\u200b my  card"]
    for text in texts:
        served = client.post("/predict/", json={"text": text, "top_k": 4}).json()
        assert served.pop("model") == {"name": own.name, "version": own.version}
        assert as_served(own.predict(text, top_k=4)) == served

    several = client.post("/predict/", json={"text": texts}).json()
    for served, prediction in zip(several, own.predict(texts), strict=True):
        assert prediction.label == served["label"]
        assert prediction.score == pytest.approx(served["score"], abs=2e-6)

    info = client.get("/info").json()
    facts = (own.name, own.version, list(own.labels), own.runtime, own.max_length)
    named = ("name", "version", "labels", "runtime", "max_length")
    assert facts == tuple(info[name] for name in named)
    assert own.path == served_bundle
    assert own.has_policy == (info["policy"] is not None)

    text = "my card has not arrived"
    body = {"text": text, "explain": True}
    served = client.post("/predict/", json=body).json()["explanation"]
    explanation = own.explain(text)
    assert [word.word for word in explanation.words] == text.split()
    for word, sent in zip(explanation.words, served["attributions"], strict=True):
        assert round(word.weight, 4) == sent["weight"]
    assert explanation.no_neighbours == served["no_neighbours"]
    assert explanation.prediction == own.predict(text)


def test_a_list_gives_a_list_in_its_order_and_a_text_one_answer(model: bankintent.Model) -> None:
    texts = ["card " * 20, "pin", "my card has not arrived", "pin", "rate"]
    several = model.predict(texts)
    assert [prediction.label for prediction in several] == [
        model.predict(text).label for text in texts
    ]
    assert several[1] == several[3]
    assert model.predict(iter(texts)) == several
    assert model.predict(tuple(texts)) == several
    assert model.predict([]) == []

    assert len(model.predict("pin", top_k=1).top_k) == 1
    everything = model.predict("pin", top_k=100)
    assert sorted(score.label for score in everything.top_k) == sorted(model.labels)
    assert everything.top_k[0] == bankintent.Score(everything.label, everything.score)
    assert [everything.truncated, several[0].truncated] == [False, False]
    assert model.predict("card " * 100).truncated


def test_arrays_are_what_the_answers_are_made_of(model: bankintent.Model) -> None:
    texts = ["pin", "my card has not arrived " * 3, "rate"]
    logits = model.logits(texts)
    probabilities = model.probabilities(texts)
    features = model.features(texts)
    assert logits.shape == probabilities.shape == (3, len(model.labels))
    assert features.shape[0] == 3
    assert logits.dtype == features.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    for row, prediction in enumerate(model.predict(texts)):
        assert model.labels[logits[row].argmax()] == prediction.label
        assert probabilities[row].max() == pytest.approx(prediction.score, abs=1e-6)

    assert model.logits("pin").shape == (len(model.labels),)
    np.testing.assert_allclose(model.features("pin"), features[0], atol=1e-5)
    assert model.logits([]).shape == (0, len(model.labels))
    assert len(model.features([])) == 0


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        ("", "the text is empty or blank"),
        (["pin", " \t\u200b"], r"texts\[1\] is empty or blank"),
        (["pin", "rate", None], r"texts\[2\] is no text but a NoneType"),
        ([float("nan")], r"texts\[0\] is no text but a float"),
        (["pin", "a secret \ud800"], r"texts\[1\] is not valid Unicode"),
    ],
)
def test_what_is_no_text_is_refused_with_its_place(
    model: bankintent.Model, texts: Any, says: str
) -> None:
    methods: list[Callable[[Any], Any]] = [model.predict, model.logits, model.features]
    for method in [*methods, model.probabilities]:
        with pytest.raises(DataError, match=says) as caught:
            method(texts)
        # An error may end in a log, where no text of a customer belongs.
        assert "secret" not in str(caught.value)
    if isinstance(texts, str):
        with pytest.raises(DataError, match=says):
            model.explain(texts)


@pytest.mark.parametrize("top_k", [0, -1, True, 2.0, "3"])
def test_a_number_of_intents_that_is_none_is_refused(model: bankintent.Model, top_k: Any) -> None:
    with pytest.raises(ConfigError, match="top_k is"):
        model.predict("pin", top_k)
    with pytest.raises(ConfigError, match="neighbours is"):
        model.explain("pin", neighbours=top_k)


def test_a_model_that_cannot_be_loaded_is_one_line(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing does not exist"):
        load("nothing")
    with pytest.raises(ConfigError, match="runtime: input should be 'auto', 'torch'"):
        load(exported, runtime=cast(Any, "tpu"))
    with pytest.raises(ConfigError, match="threads: input should be greater than or equal to 1"):
        load(exported, threads=0)

    copy = Path(shutil.copytree(exported, tmp_path / "copy"))
    (copy / "onnx" / "model.onnx").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"model\.onnx was changed"):
        load(str(copy), runtime="onnx")


class StubRuntime:
    """A model whose features are the lengths of texts, and which counts how it is used."""

    def __init__(self, workers: int = 2) -> None:
        self.facts = ModelFacts("stub", "1", ("a", "b"), "h", "none", 0, 99, "a test's", Path())
        self.policy: Any = None
        self.workers = workers
        self.batches: list[int] = []
        self.tokenizing: list[int] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self.is_odd = False

    @contextlib.contextmanager
    def _counted(self) -> Iterator[int]:
        with self._lock:
            self._at_once += 1
            now = self._at_once
        time.sleep(0.001)
        try:
            yield now
        finally:
            with self._lock:
                self._at_once -= 1

    def tokenize(self, texts: list[str]) -> list[Tokens]:
        self.tokenizing.append(len(texts))
        assert len(self.tokenizing) == 1, "one at a time"
        time.sleep(0.001)
        self.tokenizing.pop()
        return [Tokens({"input_ids": [1] * text.count("x")}, False) for text in texts]

    def outputs(self, items: list[Tokens]) -> Outputs:
        with self._counted() as now:
            self.most_at_once = max(self.most_at_once, now)
            self.batches.append(len(items) * max(len(item) for item in items))
            lengths = np.array([[len(item), 1] for item in items], dtype=np.float32)
            logits = lengths * np.nan if self.is_odd else lengths
            return Outputs(logits, None)

    def logits(self, items: list[Tokens]) -> Any:
        return self.outputs(items).logits


def test_batches_are_bounded_and_any_number_of_texts_keeps_its_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(api_model, "CHUNK", 700)
    runtime = StubRuntime()
    stub = bankintent.Model(runtime)
    lengths = [1 + 37 * number % 50 for number in range(2000)]
    logits = stub.logits(["x" * length for length in lengths])
    assert logits[:, 0].tolist() == lengths
    assert max(runtime.batches) <= api_model.BATCH_TOKENS
    assert len(runtime.batches) > 50

    runtime.batches.clear()
    stub.logits("x" * 5000)
    assert runtime.batches == [5000]


def test_any_number_of_threads_may_use_a_model() -> None:
    runtime = StubRuntime(workers=2)
    stub = bankintent.Model(runtime)

    def ask(number: int) -> float:
        texts = ["x" * (1 + number)] * (1 + number % 3)
        return float(stub.logits(texts)[-1, 0])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(60))) == [1 + number for number in range(60)]
    # No more calls at once than the runtime has workers.
    assert runtime.most_at_once == 2


def test_a_real_model_answers_several_threads_at_once(model: bankintent.Model) -> None:
    expected = [model.predict(text).label for text in TEXTS]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda text: model.predict(text).label, TEXTS))
    assert found == expected


def test_what_a_model_cannot_give_is_an_error() -> None:
    runtime = StubRuntime()
    stub = bankintent.Model(runtime)
    with pytest.raises(ModelError, match="stub gives no features with a test's"):
        stub.features(["x"])
    with pytest.raises(DataError, match=r"texts\[1\] is blank to this model"):
        stub.predict(["x", "y"])
    with pytest.raises(DataError, match="the text is blank to this model"):
        stub.explain("y")

    runtime.is_odd = True
    with pytest.raises(ModelError, match="scores that are not finite"):
        stub.predict("x")


# Steps


def test_data_is_prepared_as_by_the_command(tmp_path: Path, capsys: Any) -> None:
    write_csv(tmp_path / "small.csv", rows())
    config = write_yaml(tmp_path / "data.yaml", dataset_name="nothing.csv", output_dir="data")
    data = bankintent.etl(config, dataset_name="small.csv", split="stratified")
    assert "small.csv" in capsys.readouterr().out
    assert data.path == Path("data")
    assert set(data.labels) == {"card_lost", "Exchange", "top_up"}
    assert set(data.rows) == {"train", "val", "test"}
    assert sum(data.rows.values()) == len(rows())
    assert "Rows of each intent" in data.report.read_text()

    # A mapping, a config, and nothing printed.
    values = {"dataset_name": "small.csv", "output_dir": "other"}
    for given in (values, DataConfig.model_validate(values)):
        # A keyword wins over `set`.
        other = bankintent.etl(given, set={"split": "cross"}, quiet=True, split="stratified")
        assert other.rows == data.rows
    assert capsys.readouterr() == ("", "")


def test_a_model_is_trained_and_evaluated_as_by_the_commands(bundle: Path, capsys: Any) -> None:
    # It is finished: nothing is trained anew, and the call says so.
    trained = train("train.yaml", regime="lora")
    assert "nothing to do" in capsys.readouterr().out
    assert trained.path == Path("bundle")
    assert trained.metrics == json.loads((bundle / "metrics.json").read_text())["metrics"]["val"]

    result = evaluate(trained, output_dir="evals/one", tracking=SETTINGS)
    assert "Most confused" in capsys.readouterr().out
    recorded = json.loads((Path("evals/one") / "metrics.json").read_text())
    assert result.metrics == recorded["metrics"]
    assert json.loads(json.dumps(result.details)) == recorded
    assert result.rows == recorded["rows"]
    low, high = result.intervals["accuracy"]
    assert low <= result.metrics["accuracy"] <= high
    assert result.report.is_file()
    assert result.predictions.is_file()

    # A loaded model, a table, a config; nothing printed.
    model = trained.load(runtime="torch", threads=1)
    table = write_csv(Path("may.csv"), [(text, label) for text, label in rows(4)])
    config = {"tracking": SETTINGS, "output_dir": "evals/two", "bootstrap": 200}
    again = evaluate(model, table, config=config, quiet=True)
    assert capsys.readouterr() == ("", "")
    assert again.rows == 12
    answers = [prediction.label for prediction in model.predict([text for text, _ in rows(4)])]
    right = [answer == label for answer, (_, label) in zip(answers, rows(4), strict=True)]
    assert again.metrics["accuracy"] == pytest.approx(np.mean(right))


@pytest.mark.parametrize(
    ("config", "overrides", "says"),
    [
        ("nothing.yaml", {}, "nothing.yaml does not exist"),
        ({"regime": "lora"}, {"epocs": 3}, 'unknown key "epocs", did you mean "epochs"?'),
        ({"regime": "lora"}, {"lora.rank": 3}, 'unknown key "lora.rank"'),
        ({"regime": "lora"}, {"epochs": "many"}, "epochs: input should be a valid integer"),
        ({"regime": "lora"}, {"epochs": True}, "epochs: true is no value for this key"),
        ({"lora": {"r": 4}, "seed": 1}, {"seed.x": 4}, 'seed.x: "seed" is a value, not a section'),
        ({"regime": "lora"}, {"lora..r": 4}, '"lora..r" is no key'),
        (DataConfig.model_validate({"dataset_name": "x"}), {}, "the config is a DataConfig"),
    ],
)
def test_a_wrong_setting_is_one_line(config: Any, overrides: dict[str, Any], says: str) -> None:
    whole = config
    if isinstance(config, dict):
        whole = {"model_name": "m", "output_dir": "out"} | config
    with pytest.raises(UserError, match=re.escape(says)) as caught:
        train(whole, set=overrides)
    assert len(str(caught.value).splitlines()) == 1
    assert isinstance(caught.value, bankintent.UserError)


def test_overrides_leave_what_they_are_given_as_it_is() -> None:
    section = LoraSection(r=4)
    values: dict[str, Any] = {"regime": "lora", "output_dir": "out", "lora": section}
    values["model_name"] = "m"
    changed = configfile.build(TrainConfig, values, {"lora.alpha": 64, "seed": 3})
    assert (changed.lora.r, changed.lora.alpha, changed.seed) == (4, 64, 3)
    assert values["lora"] is section
    assert "seed" not in values

    again = configfile.build(TrainConfig, changed, {"lora.r": 2})
    assert (again.lora.r, again.lora.alpha, changed.lora.r) == (2, 64, 4)
    assert again.model_fields_set == changed.model_fields_set


def test_an_error_of_the_machine_is_one_line_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bankintent.commands import etl

    def fill_the_disk(_: Any) -> None:
        raise OSError(28, "No space left on device", "data")

    monkeypatch.setattr(etl, "run", fill_the_disk)
    with pytest.raises(UserError, match=r"data: No space left on device\. Free space"):
        bankintent.etl({"dataset_name": "x.csv", "output_dir": "data"})


def test_a_notebook_shows_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        made = console.make_console()
        assert not made.is_jupyter
        assert not made.is_terminal
        made.print("[bold]a line[/bold]")
    assert shown.getvalue() == "a line\n"


# Types


TYPED = """
from bankintent import evaluate, load, train

model = load("x")
reveal_type(model.predict(["a"])[0].label)
reveal_type(model.predict("a").answer)
reveal_type(model.predict(iter("ab")))
reveal_type(model.predict("a").top_k[0].score)
reveal_type(model.logits("a"))
reveal_type(train("x", seed=3, set={"lora.r": 3}).path)
reveal_type(evaluate(model).metrics)
"""

REVEALED = [
    "str",
    "str | None",
    "list[bankintent.api.predictions.Prediction]",
    "float",
    "numpy.ndarray[tuple[Any, ...], numpy.dtype[numpy.floating[numpy._typing._nbit_base._32Bit]]]",
    "pathlib.Path",
    "dict[str, float]",
]


@pytest.mark.proof
def test_a_type_checker_sees_the_types_and_misspelled_names(tmp_path: Path) -> None:
    from mypy import api

    (tmp_path / "user.py").write_text(TYPED + "import bankintent\nbankintent.laod\n")
    found, _, _ = api.run(
        [
            *("--strict", "--config-file", str(REPOSITORY / "pyproject.toml")),
            *("--follow-imports", "silent", "--cache-dir", str(tmp_path / "cache")),
            str(tmp_path / "user.py"),
        ]
    )
    revealed = re.findall(r'Revealed type is "(.*)"', found)
    plain = [shown.replace("builtins.", "") for shown in revealed]
    assert plain == REVEALED
    assert found.count("error:") == 1, found
    assert 'Module has no attribute "laod"' in found


# The page


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.M)


@pytest.mark.proof
def test_the_page_and_the_front_page_work_from_top_to_bottom(
    published: Path, tiny_bert: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(published / "bundle", tmp_path / "artifacts" / "models" / "quickstart")
    shutil.copytree(REPOSITORY / "configs" / "recommended", tmp_path / "configs" / "recommended")
    for config in (tmp_path / "configs").rglob("*.yaml"):
        shrink(config, tiny_bert)
        values = yaml.safe_load(config.read_text())
        values.pop("few_shot", None)
        config.write_text(yaml.safe_dump(values))
    write_csv(tmp_path / "my.csv", rows(20))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")

    [front] = python_blocks(REPOSITORY / "README.md")
    blocks = [front, *python_blocks(PAGE)]
    assert len(blocks) > 9
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)  # noqa: S102
    printed = capsys.readouterr().out
    message = printed.strip().splitlines()[-1]
    # The error that the page shows.
    assert message in PAGE.read_text(encoding="utf-8")
    assert names["result"].report.is_file()
