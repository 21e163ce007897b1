"""The model cards: their content, what the Hub reads from them, and that every snippet runs."""

import ast
import contextlib
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from servers import running

from bankintent import process
from bankintent.bundle import attribution, card, layout
from bankintent.config import TrainConfig
from bankintent.serving.page.card import read_card, to_html

# One run with all its formats, and processes that import torch.
pytestmark = pytest.mark.timeout(900)

PARTS = {"bundle": ".", "merged": "merged", "adapter": "adapter"}
BUNDLED = {"kind": "bundled", "files": {"sentences.csv": "0" * 64}}
BANKING77_FILES = {
    "train.csv": "b06e26ac675513959a63135f11b94ea7786ed02da65db93a5650d8838cbc664b",
    "test.csv": "d12d6e3bc4c3103966ae786dc435913c0c563dfa328f5a3646d0e62cfeeb474d",
}


def blocks(markdown: str, language: str) -> list[str]:
    """The fenced blocks of a language, in order; each fence says which it is."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", markdown, re.MULTILINE | re.DOTALL)
    languages = {name for name, _ in fenced}
    assert languages <= {"python", "bash", "yaml"}, "nothing here would run it"
    return [content for name, content in fenced if name == language]


PUBLISHED = {"rule": "last", "which": "epoch 2 of 2, the last", "figures": "macro-F1 89.00 %"}


def facts(**changes: Any) -> dict[str, Any]:
    """The facts of a full fine-tuning on a file that nobody knows."""
    figures = {"accuracy": 0.9, "macro_f1": 0.89, "top3_accuracy": 1.0, "ece": 0.05, "nll": 0.3}
    plain = {
        "name": "some run",
        "answering": ["answers 93.00 % of 100 validation rows"],
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
            "cross": None,
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
            "published": PUBLISHED,
            "prefix": None,
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
    """The facts about data from another source."""
    return facts()["data"] | {"source": source, "name": name}


def metadata(text: str) -> dict[str, Any]:
    """The front matter as the Hub's own library reads it, which checks the evaluation results."""
    return ModelCard(text).data.to_dict()


RUNNER = """
import contextlib, io, json, os, sys
for folder, code in json.load(open(sys.argv[1])):
    os.chdir(folder)
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(code, code, "exec"), {})
    print(json.dumps(output.getvalue()))
"""


def run_all(snippets: list[tuple[Path, str]], scratch: Path) -> list[str]:
    """The output of each snippet, run in its folder; in one process, so torch is imported once."""
    order = scratch / "snippets.json"
    order.write_text(json.dumps([(str(folder), snippet) for folder, snippet in snippets]))
    result = subprocess.run(
        [sys.executable, "-c", RUNNER, order], capture_output=True, text=True, cwd=scratch
    )
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def answer(output: str) -> tuple[str, float]:
    """The label and the score that a snippet printed."""
    label, _, score = output.strip().rpartition(" ")
    return label, float(score)


def expected(bundle: Path) -> tuple[str, float]:
    """The label and the score that the model gives for the example on its cards."""
    from bankintent.inference.predictor import Predictor
    from bankintent.measures import metrics

    example = attribution.Origin("").example
    predictor = Predictor.load(bundle)
    scores = metrics.softmax(predictor.logits([example]))[0]
    return predictor.labels.names[int(scores.argmax())], float(scores.max())


def test_every_python_snippet_gives_the_models_answer(published: Path, tmp_path: Path) -> None:
    bundle = published / "bundle"
    # As on the Hub, without the rest of the bundle around it.
    merged = shutil.copytree(bundle / "merged", tmp_path / "pushed")
    snippets = []
    for folder in (bundle, merged, bundle / "adapter"):
        card_text = (folder / "README.md").read_text(encoding="utf-8")
        for snippet in blocks(card_text, "python"):
            if "httpx" in snippet:
                continue  # it needs the server, as another test starts it
            where_it_was_trained = "mlflow" in snippet
            snippets.append((published if where_it_was_trained else folder, snippet))

    assert len(snippets) == 6
    for library in ("pipeline(", "PeftModel", "onnxruntime", "mlflow"):
        assert any(library in snippet for _, snippet in snippets), library

    label, score = expected(bundle)
    outputs = run_all(snippets, tmp_path)
    for (_, snippet), output in zip(snippets, outputs, strict=True):
        assert answer(output) == (label, pytest.approx(score, abs=1e-3)), snippet


def test_the_onnx_snippet_needs_neither_torch_nor_transformers(published: Path) -> None:
    card_text = (published / "bundle" / "README.md").read_text(encoding="utf-8")
    (snippet,) = (block for block in blocks(card_text, "python") if "onnxruntime" in block)

    imported = set()
    for node in ast.walk(ast.parse(snippet)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module))
    assert imported == {"json", "pathlib", "numpy", "onnxruntime", "tokenizers"}


@pytest.mark.parametrize("part", ["bundle", "merged"])
def test_the_server_starts_as_the_card_says_and_answers_its_snippet(
    part: str, published: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(published / "bundle" / PARTS[part], tmp_path / part)
    text = (folder / "README.md").read_text(encoding="utf-8")
    (command,) = blocks(text, "bash")
    (snippet,) = (block for block in blocks(text, "python") if "httpx" in block)
    port = process.free_port()
    assert command.count("8000") == 1
    assert snippet.count("8000") == 1
    words = ["bash", "-c", command.replace("8000", str(port))]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "BANKINTENT": str(REPOSITORY)}
    output = io.StringIO()
    with (
        running(words, folder, ready="/health/ready", port=port, env=env, whole_group=True),
        contextlib.redirect_stdout(output),
    ):
        exec(compile(snippet.replace("8000", str(port)), "snippet", "exec"), {})  # noqa: S102 (it is what is tested)
    label, score = expected(published / "bundle")
    # It may be served in eight bits.
    assert answer(output.getvalue()) == (label, pytest.approx(score, abs=0.05))


def test_the_recipe_on_a_card_is_that_of_the_run(published: Path) -> None:
    recorded = yaml.safe_load((published / "bundle" / "config.yaml").read_text(encoding="utf-8"))
    not_on_cards = ("output_dir", "data_dir", "cache_dir", "eval_batch_size", "tracking")
    missing = {key: recorded[key] for key in not_on_cards}
    model_name = recorded["model_name"]

    for folder in PARTS.values():
        card_text = (published / "bundle" / folder / "README.md").read_text(encoding="utf-8")
        (recipe,) = blocks(card_text, "yaml")
        settings = yaml.safe_load(recipe)
        # A folder of one machine means nothing to others.
        assert settings["model_name"] == Path(model_name).name

        config = TrainConfig.model_validate({**settings, **missing, "model_name": model_name})
        assert config == TrainConfig.model_validate(recorded)


def test_the_cards_of_a_run_are_what_the_hub_reads(published: Path) -> None:
    bundle = published / "bundle"
    figures = json.loads((bundle / "metrics.json").read_text())["metrics"]["val"]
    for part, folder in PARTS.items():
        text = (bundle / folder / "README.md").read_text(encoding="utf-8")
        fields = metadata(text)
        assert fields["library_name"] == ("peft" if part == "adapter" else "transformers")
        assert fields["pipeline_tag"] == "text-classification"
        assert "base_model" not in fields  # a folder, which no one else has
        assert fields["license"] == "other"
        assert fields["license_name"] == "unstated"

        results = {result.metric_type: result for result in ModelCard(text).data.eval_results}
        assert results.keys() == {"accuracy", "f1"}
        assert results["accuracy"].metric_value == round(figures["accuracy"], 4)
        assert results["f1"].metric_value == round(figures["macro_f1"], 4)
        for result in results.values():
            assert result.dataset_split == "validation"

        assert str(published) not in text
        assert "tmp" not in text


def test_figures_pairs_and_parity_on_the_card_are_those_of_the_record(published: Path) -> None:
    bundle = published / "bundle"
    record = json.loads((bundle / "metrics.json").read_text())
    text = (bundle / "README.md").read_text(encoding="utf-8")

    accuracy = record["metrics"]["val"]["accuracy"]
    low, high = record["validation"]["intervals"]["accuracy"]
    assert low <= accuracy <= high
    assert f"| accuracy | {100 * accuracy:.2f} % | {100 * low:.2f} to {100 * high:.2f} % |" in text
    for pair in record["validation"]["confused_pairs"]:
        assert "examples" not in pair

    parity = record["parity"]
    assert len(parity["largest_logit_difference"]) == 4
    for difference in parity["largest_logit_difference"].values():
        assert f" {difference:.1e} |" in text
    for name in [*parity["formats"], *parity["left_out"]]:
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
    text = card.card_text(facts(name=name, data=own, **changes))
    assert metadata(text)["model-index"][0]["name"] == name

    tokens = MarkdownIt("commonmark").enable("table").parse(ModelCard(text).text)
    heading = next(token for token in tokens if token.type == "inline")
    assert "".join(child.content for child in heading.children or []) == name
    assert not inline(tokens, "html_inline")

    # The table of pairs and the list of labels show every name whole, as code.
    names = [" ".join(label.split()) for label in labels]
    spans = [span for span in inline(tokens, "code_inline") if span in names]
    in_pairs = list(itertools.chain.from_iterable(itertools.pairwise(names)))
    assert spans == in_pairs + names

    cells = cells_of_rows(tokens)
    assert set(cells) <= {2, 3}
    assert cells.count(3) == len(pairs) + 5 + 1  # the pairs, the metrics, one saved form


def inline(tokens: list[Any], kind: str) -> list[str]:
    """The contents of all inline elements of a kind."""
    contents = []
    for token in tokens:
        contents += [child.content for child in token.children or [] if child.type == kind]
    return contents


def cells_of_rows(tokens: list[Any]) -> list[int]:
    """The number of cells of each row below a table's header."""
    counts: list[int] = []
    for token in tokens:
        if token.type == "tr_open":
            counts.append(0)
        elif token.type == "td_open":
            counts[-1] += 1
    return [count for count in counts if count]


@pytest.mark.parametrize(
    "source",
    [
        {"kind": "hub", "repository": "mteb/banking77", "revision": "0fd18e25"},
        {"kind": "folder", "files": BANKING77_FILES},
        {"kind": "file", "files": {"any-name.csv": BANKING77_FILES["train.csv"]}},
    ],
)
def test_known_data_is_recognised_and_credited(source: dict[str, Any]) -> None:
    text = card.card_text(facts(data=data(source)))
    fields = metadata(text)
    assert fields["license"] == "apache-2.0"
    assert "license_name" not in fields
    assert fields["datasets"] == ["PolyAI/banking77"]
    assert fields["language"] == ["en"]
    assert fields["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert fields["base_model_relation"] == "finetune"
    # The revision is that of another repository, the copy.
    assert "revision" not in fields["model-index"][0]["results"][0]["dataset"]
    assert "BANKING77: CC BY 4.0. Casanueva" in text
    assert "my card has not arrived yet" in text


@pytest.mark.parametrize(
    "files",
    [
        {"train.csv": BANKING77_FILES["train.csv"], "test.csv": "0" * 64},
        {"banking77.csv": "0" * 64},
    ],
)
def test_a_license_of_files_that_are_not_known_is_not_stated(files: dict[str, str]) -> None:
    source = {"kind": "folder", "files": files}
    fields = metadata(card.card_text(facts(data=data(source, "banking77"))))
    assert fields["license"] == "other"
    assert fields["license_name"] == "unstated"
    assert not {"datasets", "language"} & set(fields)


def test_a_dataset_of_the_hub_is_named_without_a_license() -> None:
    source = {"kind": "hub", "repository": "a/b", "revision": "c" * 40}
    fields = metadata(card.card_text(facts(data=data(source))))
    assert fields["datasets"] == ["a/b"]
    assert fields["license"] == "other"
    assert fields["model-index"][0]["results"][0]["dataset"]["revision"] == "c" * 40


def test_a_base_model_that_is_not_known_leaves_the_license_open() -> None:
    own_model = facts(data=data(BUNDLED), base_model_id="someone/else", base_model="someone/else")
    fields = metadata(card.card_text(own_model))
    assert fields["base_model"] == "someone/else"
    assert fields["license"] == "other"


def test_further_training_sentences_are_credited_too() -> None:
    banking77 = {"kind": "folder", "files": BANKING77_FILES}
    text = card.card_text(facts(data=data({**banking77, "extra_train": BUNDLED})))
    assert metadata(text)["license"] == "apache-2.0"
    assert "A large language model wrote the bundled sentences" in text

    own = {"kind": "file", "files": {"more.csv": "0" * 64}}
    text = card.card_text(facts(data=data({**banking77, "extra_train": own})))
    assert metadata(text)["license"] == "other"
    assert "- more.csv: its license is not known here" in text


def test_a_card_says_how_its_figures_came_about() -> None:
    assert "lean to the high side" not in card.card_text(facts())
    published = {"rule": "best", "which": "epoch 1 of 2", "figures": "the last had 88.00 %"}
    text = card.card_text(facts(training=facts()["training"] | {"published": published}))
    assert "Published is epoch 1 of 2 (the last had 88.00 %).\nIt was chosen on these" in text
    assert "lean to the high side" in text

    validation = facts()["validation"] | {"confused_pairs": []}
    text = card.card_text(facts(validation=validation))
    assert "None: every validation sentence got its label." in text


def test_a_card_names_the_teacher_of_a_student() -> None:
    assert "distilled" not in card.card_text(facts())
    teacher = {"name": "big", "layers": 6, "kept_layers": [2, 4, 6], "val": {"accuracy": 0.93}}
    text = card.card_text(facts(distilled_from=teacher))
    assert "distilled from `big`" in text
    assert "layers 2, 4, 6 of the 6 of that model, whose validation accuracy is 93.00 %" in text


def test_the_address_of_a_tracking_server_stays_off_the_card() -> None:
    from bankintent.config import TrackingConfig
    from bankintent.tracking import Tracker
    from bankintent.training import record

    tracker = Tracker(TrackingConfig())
    assert record.tracked(tracker, "sqlite:///a.db") is None  # nothing was begun
    tracker.run_id = "abc"
    expected_record = {"run_id": "abc", "uri": "sqlite:///a.db"}
    assert record.tracked(tracker, "sqlite:///a.db") == expected_record

    hidden = record.tracked(tracker, "https://user:secret@host/")
    text = card.card_text(facts(tracked=hidden))
    assert "secret" not in text
    assert 'run_id="abc"' in text
    assert "Set `MLFLOW_TRACKING_URI`" in text


def test_an_owner_may_fill_in_a_card(bundle: Path) -> None:
    for folder in PARTS.values():
        with (bundle / folder / "README.md").open("a", encoding="utf-8") as file:
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
