"""The architecture: imports point one way and in no circle, and each heavy library has its importers."""

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import COMMANDS, REPOSITORY

RANKS = {
    "corpus": 1,
    "measures": 1,
    "bundle": 2,
    "decision": 2,
    "inference": 3,
    "explanation": 4,
    "scoring": 4,
    "export": 4,
    "training": 5,
    "serving": 6,
    "studies": 6,
    "baselines": 6,
    "first_steps": 6,
    "audit": 7,
    "gradio_app": 7,
}
"""Rooms of the package; its own modules (config, labels, tracking, ...) have rank 0."""

TOOLS = ("benchmarks", "docs", "notebooks")
"""What uses the package and the commands, and is used by neither."""

TRAINING = {
    "training.arguments",
    "training.backbones",
    "training.features",
    "training.fit",
    "training.methods.contrastive",
    "training.methods.distillation",
    "training.methods.probe",
    "training.pooling",
    "training.regimes",
    "training.trainer",
}

IMPORTERS = {
    "torch": TRAINING
    | {
        "baselines.references",
        "baselines.zero_shot",
        "export.onnx_export",
        "export.publish",
        "first_steps.libraries",
        "first_steps.probe",
        "inference.head_inputs",
        "inference.loaded",
        "inference.predictor",
        "inference.torch_runtime",
        "training.dropout",
        "training.forward_check",
        "training.hardware",
        "training.losses",
        "training.validating",
    },
    "transformers": TRAINING
    | {
        "baselines.references",
        "baselines.zero_shot",
        "export.mlflow_loader",
        "export.publish",
        "first_steps.probe",
        "inference.predictor",
        "training.encoding",
        "training.progress",
        "training.selection",
        "training.validating",
    },
    "peft": {"export.publish", "inference.predictor", "training.regimes"},
    "mlflow": {"tracking", "tracking_files"},
    "gradio": {
        "gradio_app.card_tab",
        "gradio_app.message_tab",
        "gradio_app.page",
        "gradio_app.table_tab",
        "gradio_app.why",
    },
    "pandas": set(),
    "matplotlib": {"measures.confusion_plots", "measures.plots", "measures.trust_plots"},
    "cleanlab": {"audit.suspects"},
    "sklearn": {
        "audit.pairs",
        "audit.quick",
        "baselines.tfidf",
        "corpus.cross_split",
        "corpus.near",
        "decision.gaussian_fit",
        "decision.prototype_fit",
        "decision.refit",
        "studies.trials",
        "training.methods.probe",
        "training.methods.pseudo_labels",
    },
    "optuna": {"studies.trials"},
    "datasets": {"corpus.hub_source"},
    "py3langid": {"corpus.language"},
    "onnx": set(),
    "onnx_ir": {
        "export.features_output",
        "export.first_token",
        "export.int8",
        "export.onnx_export",
    },
    "onnxruntime": {"export.int8", "inference.exported_runtime"},
    "onnxscript": set(),
    "openvino": {"inference.exported_runtime"},
    "fastapi": {
        "audit.page.app",
        "serving.addresses",
        "serving.bounded",
        "serving.admission",
        "serving.app",
        "serving.bound_server",
        "serving.compat.services",
        "serving.compat.answers",
        "serving.compat.azure",
        "serving.compat.clu",
        "serving.compat.dialect",
        "serving.compat.luis",
        "serving.compat.rasa",
        "serving.decision_header",
        "serving.explaining",
        "serving.page.routes",
        "serving.wire",
    },
    "starlette": {
        "audit.page.app",
        "gradio_app.page",
        "serving.addresses",
        "serving.app",
        "serving.body_limit",
        "serving.bound_server",
        "serving.compat.dialect",
        "serving.error_bodies",
        "serving.hosts",
        "serving.page.routes",
        "serving.telemetry",
    },
    "typer": {"__main__", "audit.verbs", "cli"},
}
"""The modules of the package that import a heavy library, at their top or inside a function."""

CLI_IMPORTERS = {"__main__", "studies.trials", "studies.worker"}
"""The modules of the package that import `cli`, and so Typer: each is the entry point of a process."""


def imports(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it, also by `import_module("name")`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names |= {word.value for word in node.args if isinstance(word, ast.Constant)}
    return names


def room(module: str) -> str:
    part = module.split(".")[1] if module.startswith("bankintent.") else ""
    return part if part in RANKS else ""


def package_files() -> list[Path]:
    return sorted((REPOSITORY / "bankintent").rglob("*.py"))


def modules() -> Iterator[tuple[str, set[str]]]:
    """The name of each module of the package, and what it imports."""
    for path in package_files():
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        yield ".".join(parts).removesuffix(".__init__"), imports(path)


def importers(library: str) -> set[str]:
    """The modules of the package that import a library or a module, by their names within the package."""
    return {
        module.removeprefix("bankintent.")
        for module, imported in modules()
        if any(name == library or name.startswith(f"{library}.") for name in imported)
    }


def test_imports_point_one_way() -> None:
    wrong = []
    for module, imported in modules():
        if module == "bankintent.__main__":
            continue
        own = room(module)
        for name in imported:
            other = room(name)
            if other and other != own and RANKS[other] >= RANKS.get(own, 0):
                wrong.append(f"{module} imports {name}")
    assert not wrong


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = dict(modules())
    known = {module: imported & graph.keys() for module, imported in graph.items()}
    try:
        graphlib.TopologicalSorter(known).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_the_package_imports_no_command_and_no_tool() -> None:
    above = {*COMMANDS, *TOOLS}
    for module, imported in modules():
        assert not {name.split(".")[0] for name in imported} & above, module


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_import_no_commands_and_no_tools(command: str) -> None:
    imported = imports(REPOSITORY / f"{command}.py")
    assert not {name.split(".")[0] for name in imported} & {*COMMANDS, *TOOLS}


@pytest.mark.parametrize("tool", TOOLS)
def test_tools_import_no_other_tool(tool: str) -> None:
    files = sorted((REPOSITORY / tool).rglob("*.py"))
    assert files
    for path in files:
        imported = {name.split(".")[0] for name in imports(path)}
        assert not imported & {*TOOLS} - {tool}, path


@pytest.mark.parametrize("library", IMPORTERS)
def test_a_heavy_library_has_its_importers_and_no_others(library: str) -> None:
    assert importers(library) == IMPORTERS[library]


def test_printing_loads_no_command_line() -> None:
    assert importers("bankintent.cli") == CLI_IMPORTERS


@pytest.mark.parametrize(
    "module",
    ["bankintent.training.rows", "bankintent.training.identity", "bankintent.studies.plan"],
)
def test_runs_are_planned_without_heavy_libraries(module: str) -> None:
    """Their memory would count into the peak of every run that the planning process starts."""
    program = (
        f"import sys, {module}\n"
        "print(sorted({'torch', 'transformers', 'peft'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    assert done.stdout.strip() == "[]"


def test_no_unsafe_loading() -> None:
    for path in [*package_files(), *REPOSITORY.glob("*.py")]:
        text = path.read_text(encoding="utf-8")
        assert "trust_remote_code=True" not in text
        assert not re.search(
            r"\bimport (pickle|dill|joblib)\b|torch\.load\(|allow_pickle=True", text
        ), path


def test_no_tracked_file_names_a_machine_path() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], capture_output=True, text=True, cwd=REPOSITORY, check=True
    ).stdout
    pattern = re.compile(r"(^|[\s\"'(=])/(" + "|".join(("work", "home", "root")) + ")/")
    for name in tracked.split("\n"):
        path = REPOSITORY / name
        if (
            path.suffix in (".py", ".md", ".yaml", ".toml", ".txt", ".ipynb", ".json")
            and path.is_file()
        ):
            assert not pattern.search(path.read_text(encoding="utf-8")), name


def test_reading_a_dataset_loads_no_parser_of_sources() -> None:
    """Training and evaluation read what ETL wrote; nothing of what ETL itself needs."""
    imported = imports(REPOSITORY / "bankintent" / "corpus" / "dataset.py")
    own = {module for module in imported if module.startswith("bankintent.corpus")}
    # The folds of a cross-validation, arrays alone, are a part of what ETL wrote.
    assert own <= {"bankintent.corpus.folds", "bankintent.corpus.folds.Folds"}
