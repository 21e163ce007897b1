"""The model cards: what they say, what the Hub reads from them, and that every snippet on them runs as it stands."""

import ast
import contextlib
import io
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from conftest import REPOSITORY, rows, train_config, write_csv, write_yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from bankintent.bundle import attribution, card, layout
from bankintent.config import TrainConfig
from bankintent.serving.page.card import read_card, to_html

pytestmark = pytest.mark.timeout(
    900
)  # one run with all its formats, and processes that import torch

LABELS = {"card_lost": 'card|lost: "it"', "top_up": "top_up `now`", "Exchange": "# Exchange"}
"""Names with what means something in Markdown, YAML or Python."""
PARTS = {"bundle": ".", "merged": "merged", "adapter": "adapter"}
START_SECONDS = 120
BANKING77_FILES = {
    "train.csv": "b06e26ac675513959a63135f11b94ea7786ed02da65db93a5650d8838cbc664b",
    "test.csv": "d12d6e3bc4c3103966ae786dc435913c0c563dfa328f5a3646d0e62cfeeb474d",
}


@pytest.fixture(scope="module")
def published(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tracked LoRA run with every exported format: its bundle is `bundle/` in it."""
    import etl
    import multiregime

    folder = tmp_path_factory.mktemp("published")
    tracked = {"uri": "sqlite:///t/mlflow.db", "artifacts": "t/runs"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        source = write_csv(folder / "small.csv", [(text, LABELS[label]) for text, label in rows()])
        etl.main(write_yaml(folder / "data.yaml", dataset_name=str(source), output_dir="data"))
        settings = {"epochs": 1, "export": {"onnx": True}, "tracking": tracked}
        config = train_config(
            folder / "train.yaml", tiny_bert, Path("data"), Path("bundle"), **settings
        )
        multiregime.main(config, regime="lora")
    return folder


def blocks(markdown: str, language: str) -> list[str]:
    """The fenced blocks of a language, in order; each fence says which it is."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", markdown, re.MULTILINE | re.DOTALL)
    assert {name for name, _ in found} <= {"python", "bash", "yaml"}, "nothing here would run it"
    return [content for name, content in found if name == language]


def facts(**changes: Any) -> dict[str, Any]:
    """What a run hands over, as of a full fine-tuning on a file of one's own."""
    figures = {"accuracy": 0.9, "macro_f1": 0.89, "top3_accuracy": 1.0, "ece": 0.05, "nll": 0.3}
    plain = {
        "name": "some run",
        "base_model": "sentence-transformers/all-MiniLM-L6-v2",
        "base_model_id": "sentence-transformers/all-MiniLM-L6-v2",
        "labels": ["a", "b"],
        "config": {"regime": "full-ft", "max_length": 32, "few_shot": None, "early_stopping": None},
        "settings": {"model_name": "bundled/all-MiniLM-L6-v2", "regime": "full-ft"},
        "data": {
            "name": "own.csv",
            "source": {"kind": "file", "files": {"own.csv": "0" * 64}},
            "hash": "1" * 64,
            "train_rows": 1000,
            "val_rows": 100,
            "unlabelled_rows": 0,
        },
        "metrics": {"val": figures},
        "validation": {
            "rows": 100,
            "intervals": {"accuracy": [0.85, 0.95], "macro_f1": [0.84, 0.94]},
            "bootstrap": {"resamples": 2000, "seed": 6},
            "confused_pairs": [{"true": "a", "predicted": "b", "count": 3}],
        },
        "training": {
            "trainable_parameters": 10,
            "total_parameters": 1000,
            "seconds": 12.3,
            "epochs": 2.0,
            "sentences_per_second": 45.6,
            "precision": "fp32",
            "hardware": "CPU, 1 thread",
        },
        "parity": {
            "rows": 64,
            "tolerance": 1e-4,
            "largest_logit_difference": {"merged, batch 1": 1e-6},
            "formats": {},
            "left_out": {},
        },
        "versions": {"torch": "2"},
        "tracked": None,
    }
    return plain | changes


def data(source: dict[str, Any], name: str = "data") -> dict[str, Any]:
    return facts()["data"] | {"source": source, "name": name}


def metadata(text: str) -> dict[str, Any]:
    """The front matter as the Hub's own library reads it, which checks the evaluation results."""
    return ModelCard(text).data.to_dict()


RUNNER = """
import contextlib, io, json, os, sys
for folder, code in json.load(open(sys.argv[1])):
    os.chdir(folder)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(code, code, "exec"), {})
    print(json.dumps(said.getvalue()))
"""


def run_all(snippets: list[tuple[Path, str]], scratch: Path) -> list[str]:
    """What each snippet prints when it is run in its folder; one process for all, since each imports torch anew."""
    order = scratch / "snippets.json"
    order.write_text(json.dumps([(str(folder), snippet) for folder, snippet in snippets]))
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, order], capture_output=True, text=True, cwd=scratch
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def answer(said: str) -> tuple[str, float]:
    """The label and the score that a snippet printed."""
    label, _, score = said.strip().rpartition(" ")
    return label, float(score)


def expected(bundle: Path) -> tuple[str, float]:
    from bankintent.inference.predictor import Predictor
    from bankintent.measures import metrics

    predictor = Predictor.load(bundle)
    scores = metrics.softmax(predictor.logits([attribution.Origin("").example]))[0]
    return predictor.labels.names[int(scores.argmax())], float(scores.max())


def test_every_python_snippet_gives_the_models_answer(published: Path, tmp_path: Path) -> None:
    bundle = published / "bundle"
    alone = shutil.copytree(
        bundle / "merged", tmp_path / "pushed"
    )  # as on the Hub: nothing of ours beside it
    places = {"bundle": bundle, "merged": alone, "adapter": bundle / "adapter"}
    snippets = [
        (published if "mlflow" in snippet else place, snippet)
        for place in places.values()
        for snippet in blocks((place / "README.md").read_text(encoding="utf-8"), "python")
        if "httpx" not in snippet  # it needs the server, below
    ]
    libraries = {"pipeline(", "PeftModel", "onnxruntime", "mlflow"}
    found = [library for _, snippet in snippets for library in libraries if library in snippet]
    assert sorted(set(found)) == sorted(libraries)
    assert len(snippets) == 6
    label, score = expected(bundle)
    for (_, snippet), said in zip(snippets, run_all(snippets, tmp_path), strict=True):
        assert answer(said) == (label, pytest.approx(score, abs=1e-3)), snippet


def test_the_onnx_snippet_needs_neither_torch_nor_transformers(published: Path) -> None:
    card_text = (published / "bundle" / "README.md").read_text(encoding="utf-8")
    (snippet,) = (block for block in blocks(card_text, "python") if "onnxruntime" in block)
    nodes = list(ast.walk(ast.parse(snippet)))
    imported = {
        alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names
    }
    imported |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    assert imported == {"json", "pathlib", "numpy", "onnxruntime", "tokenizers"}


@contextlib.contextmanager
def started(command: str, folder: Path, url: str) -> Iterator[None]:
    """A shell command that starts a server, until the block ends."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "BANKINTENT": str(REPOSITORY)}
    log = folder.parent / "server.log"
    with log.open("wb") as file:
        options: dict[str, Any] = {
            "cwd": folder,
            "env": environment,
            "stdout": file,
            "stderr": subprocess.STDOUT,
        }
        process = subprocess.Popen(["bash", "-c", command], start_new_session=True, **options)
    try:
        end = time.monotonic() + START_SECONDS
        while not ready(url):
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("part", ["bundle", "merged"])
def test_the_server_starts_as_the_card_says_and_answers_its_snippet(
    part: str, published: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(published / "bundle" / PARTS[part], tmp_path / part)
    text = (folder / "README.md").read_text(encoding="utf-8")
    (command,) = blocks(text, "bash")
    (snippet,) = (block for block in blocks(text, "python") if "httpx" in block)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    assert command.count("8000") == 1
    assert snippet.count("8000") == 1
    said = io.StringIO()
    with (
        started(command.replace("8000", port), folder, f"http://127.0.0.1:{port}"),
        contextlib.redirect_stdout(said),
    ):
        exec(compile(snippet.replace("8000", port), "snippet", "exec"), {})  # noqa: S102 (it is what is tested)
    label, score = expected(published / "bundle")
    assert answer(said.getvalue()) == (
        label,
        pytest.approx(score, abs=0.05),
    )  # it may be served in eight bits


def test_the_recipe_on_a_card_is_that_of_the_run(published: Path) -> None:
    recorded = yaml.safe_load((published / "bundle" / "config.yaml").read_text(encoding="utf-8"))
    elsewhere = {
        key: recorded[key]
        for key in ("output_dir", "data_dir", "cache_dir", "eval_batch_size", "tracking")
    }
    for part in PARTS.values():
        (recipe,) = blocks(
            (published / "bundle" / part / "README.md").read_text(encoding="utf-8"), "yaml"
        )
        shown = yaml.safe_load(recipe)
        assert (
            shown["model_name"] == Path(recorded["model_name"]).name
        )  # the folder of one machine says nothing
        config = TrainConfig.model_validate(
            shown | elsewhere | {"model_name": recorded["model_name"]}
        )
        assert config == TrainConfig.model_validate(recorded)


def test_the_cards_of_a_run_are_what_the_hub_reads(published: Path) -> None:
    bundle = published / "bundle"
    figures = json.loads((bundle / "metrics.json").read_text())
    for part, place in PARTS.items():
        text = (bundle / place / "README.md").read_text(encoding="utf-8")
        found = metadata(text)
        assert found["library_name"] == ("peft" if part == "adapter" else "transformers")
        assert found["pipeline_tag"] == "text-classification"
        assert "base_model" not in found  # a folder, which no one else has
        assert (found["license"], found["license_name"]) == ("other", "unstated")
        results = ModelCard(text).data.eval_results
        assert {(r.metric_type, r.metric_value, r.dataset_split) for r in results} == {
            ("accuracy", round(figures["metrics"]["val"]["accuracy"], 4), "validation"),
            ("f1", round(figures["metrics"]["val"]["macro_f1"], 4), "validation"),
        }
        assert str(published) not in text
        assert "tmp" not in text


def test_figures_pairs_and_parity_on_the_card_are_those_of_the_record(published: Path) -> None:
    bundle = published / "bundle"
    record = json.loads((bundle / "metrics.json").read_text())
    text = (bundle / "README.md").read_text(encoding="utf-8")
    low, high = record["validation"]["intervals"]["accuracy"]
    assert low <= record["metrics"]["val"]["accuracy"] <= high
    value = record["metrics"]["val"]["accuracy"]
    assert f"| accuracy | {100 * value:.2f} % | {100 * low:.2f} to {100 * high:.2f} % |" in text
    assert all("examples" not in pair for pair in record["validation"]["confused_pairs"])
    assert len(record["parity"]["largest_logit_difference"]) == 4
    for difference in record["parity"]["largest_logit_difference"].values():
        assert f" {difference:.1e} |" in text
    for name in [*record["parity"]["formats"], *record["parity"]["left_out"]]:
        assert f"- {name}" in text


def test_names_of_any_kind_leave_the_card_whole() -> None:
    labels = [
        "a|b",
        "c`d",
        "``",
        "<img src=x onerror='alert(1)'>",
        "e: {f}",
        "---",
        "g\nh",
        "[i](http://a.test)",
        "\\",
    ]
    pairs = [{"true": a, "predicted": b, "count": 1} for a, b in itertools.pairwise(labels)]
    changes = {"labels": labels, "validation": facts()["validation"] | {"confused_pairs": pairs}}
    name = "it's: a \"run\" # | <b>1</b> {{ 7 }} 'x'"
    own = data({"kind": "folder", "files": {"train.csv": "0" * 64}}, "---\nmy: *data* |")
    text = card.render(facts(name=name, data=own, **changes))
    assert metadata(text)["model-index"][0]["name"] == name

    tokens = MarkdownIt("commonmark").enable("table").parse(read_body(text))
    spans = [
        child.content
        for token in tokens
        for child in token.children or []
        if child.type == "code_inline"
    ]
    one_line = [" ".join(label.split()) for label in labels]
    assert [span for span in spans if span in one_line] == [
        *sum(itertools.pairwise(one_line), ()),
        *one_line,
    ]
    cells = [sum(t.type == "td_open" for t in tokens[a:b]) for a, b in rows_of(tokens)]
    assert set(cells) <= {2, 3}
    assert cells.count(3) == len(pairs) + 5 + 1  # the pairs, the metrics, one saved form
    heading = next(token for token in tokens if token.type == "inline")
    assert "".join(child.content for child in heading.children or []) == name
    assert not any(
        child.type == "html_inline" for token in tokens for child in token.children or []
    )


def read_body(text: str) -> str:
    return ModelCard(text).text


def rows_of(tokens: list[Any]) -> Iterator[tuple[int, int]]:
    """First and last token of each row below a table's header."""
    starts = [
        i
        for i, token in enumerate(tokens)
        if token.type == "tr_open" and tokens[i + 1].type == "td_open"
    ]
    return (
        (start, next(i for i in range(start, len(tokens)) if tokens[i].type == "tr_close"))
        for start in starts
    )


@pytest.mark.parametrize(
    "source",
    [
        {"kind": "hub", "repository": "mteb/banking77", "revision": "0fd18e25"},
        {"kind": "folder", "files": BANKING77_FILES},
        {"kind": "file", "files": {"any-name.csv": BANKING77_FILES["train.csv"]}},
    ],
)
def test_known_data_is_recognised_and_credited(source: dict[str, Any]) -> None:
    text = card.render(facts(data=data(source)))
    found = metadata(text)
    assert found["license"] == "apache-2.0"
    assert "license_name" not in found
    assert found["datasets"] == ["PolyAI/banking77"]
    assert found["language"] == ["en"]
    assert (found["base_model"], found["base_model_relation"]) == (
        "sentence-transformers/all-MiniLM-L6-v2",
        "finetune",
    )
    assert (
        "revision" not in found["model-index"][0]["results"][0]["dataset"]
    )  # it is another repository's
    assert "BANKING77: CC BY 4.0. Casanueva" in text
    assert "my card has not arrived yet" in text


def test_what_is_not_known_is_not_stated() -> None:
    mixed = {"train.csv": BANKING77_FILES["train.csv"], "test.csv": "0" * 64}
    for source in (
        {"kind": "folder", "files": mixed},
        {"kind": "file", "files": {"banking77.csv": "0" * 64}},
    ):
        found = metadata(card.render(facts(data=data(source, "banking77"))))
        assert (found["license"], found["license_name"]) == ("other", "unstated")
        assert not {"datasets", "language"} & set(found)
    theirs = metadata(
        card.render(facts(data=data({"kind": "hub", "repository": "a/b", "revision": "c" * 40})))
    )
    assert (theirs["datasets"], theirs["license"]) == (["a/b"], "other")
    assert theirs["model-index"][0]["results"][0]["dataset"]["revision"] == "c" * 40

    bundled = {"kind": "bundled", "files": {"sentences.csv": "0" * 64}}
    found = metadata(
        card.render(
            facts(data=data(bundled), base_model_id="someone/else", base_model="someone/else")
        )
    )
    assert (found["base_model"], found["license"]) == ("someone/else", "other")


def test_further_training_sentences_are_credited_too() -> None:
    bundled = {"kind": "bundled", "files": {"sentences.csv": "0" * 64}}
    text = card.render(
        facts(data=data({"kind": "folder", "files": BANKING77_FILES, "extra_train": bundled}))
    )
    assert metadata(text)["license"] == "apache-2.0"
    assert "A large language model wrote the bundled sentences" in text
    own = {"kind": "file", "files": {"more.csv": "0" * 64}}
    text = card.render(
        facts(data=data({"kind": "folder", "files": BANKING77_FILES, "extra_train": own}))
    )
    assert metadata(text)["license"] == "other"
    assert "- more.csv: its license is not known here" in text


def test_a_card_says_how_its_figures_came_about() -> None:
    assert "lean to the high side" not in card.render(facts())
    early = facts()["config"] | {"early_stopping": 2}
    assert "lean to the high side" in card.render(facts(config=early))
    assert "distilled" not in card.render(facts())
    teacher = {"name": "big", "layers": 6, "kept_layers": [2, 4, 6], "val": {"accuracy": 0.93}}
    text = card.render(facts(distilled_from=teacher))
    assert "distilled from `big`" in text
    assert "layers 2, 4, 6 of the 6 of that model, whose validation accuracy is 93.00 %" in text
    assert "None: every validation sentence got its label." in card.render(
        facts(validation=facts()["validation"] | {"confused_pairs": []})
    )


def test_the_address_of_a_tracking_server_stays_off_the_card(tmp_path: Path) -> None:
    from bankintent.config import TrackingConfig
    from bankintent.tracking import Tracker
    from bankintent.training import record as run_facts

    tracker = Tracker(TrackingConfig())
    assert run_facts.tracked(tracker, "sqlite:///a.db") is None  # nothing was begun
    tracker.run_id = "abc"
    assert run_facts.tracked(tracker, "sqlite:///a.db") == {
        "run_id": "abc",
        "uri": "sqlite:///a.db",
    }
    hidden = run_facts.tracked(tracker, "https://user:secret@host/")
    text = card.render(facts(tracked=hidden))
    assert "secret" not in text
    assert 'run_id="abc"' in text
    assert "Set `MLFLOW_TRACKING_URI`" in text


def test_an_owner_may_fill_in_a_card(bundle: Path) -> None:
    for part in PARTS.values():
        with (bundle / part / "README.md").open("a", encoding="utf-8") as file:
            file.write("\nLicensed to everyone.\n")
    assert layout.open_checkpoint(bundle).format == "merged"
    shutil.rmtree(bundle / "merged")
    assert layout.open_checkpoint(bundle).format == "base + adapter"


def test_the_page_shows_the_card_without_its_front_matter(bundle: Path) -> None:
    html = to_html(read_card(bundle))
    assert html.startswith("<h1>bundle</h1>")
    assert "model-index" not in html
    assert html.count("<table>") == html.count("</table>") >= 4
    assert "```" not in html
