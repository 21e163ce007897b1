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

import bankintent

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
    "on_ray": 7,
    "commands": 8,
    "api": 9,
}
"""Rooms of the package; its own modules (config, labels, tracking, ...) have rank 0."""

TOOLS = ("benchmarks", "docs", "notebooks")
"""What uses the package and the commands, and is used by neither."""

VERBS = {
    f"commands.{path.stem}"
    for path in (REPOSITORY / "bankintent" / "commands").glob("*.py")
    if path.stem != "__init__"
}
"""The commands: a module for each verb."""

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
        "export.shared_base",
        "first_steps.libraries",
        "first_steps.probe",
        "inference.adapters.torch_base",
        "inference.head_inputs",
        "inference.loaded",
        "inference.predictor",
        "inference.torch_runtime",
        "training.dropout",
        "training.encoding",
        "training.forward_check",
        "training.hardware",
        "training.losses",
        "training.processes",
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
        "training.encoded_file",
        "training.encoding",
        "training.forward_check",
        "training.prefix",
        "training.processes",
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
    "duckdb": {
        "corpus.large.describing",
        "corpus.large.dividing",
        "corpus.large.leaking",
        "corpus.large.near_pairs",
        "corpus.large.run",
        "corpus.large.spool",
    },
    "py3langid": {"corpus.language"},
    "onnx": set(),
    "onnx_ir": {
        "export.features_output",
        "export.first_token",
        "export.int8",
        "export.onnx_export",
        "export.shared_base",
    },
    "onnxruntime": {"inference.engines"},
    "onnxscript": set(),
    "openvino": {"inference.engines"},
    "ray": {
        "on_ray.cluster",
        "on_ray.scoring",
        "on_ray.serve_app",
        "on_ray.serving",
        "on_ray.studies",
    },
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
        "serving.invalid_bodies",
    },
    "starlette": {
        "audit.page.app",
        "gradio_app.page",
        "on_ray.multiplexing",
        "on_ray.ready",
        "on_ray.serve_app",
        "serving.addresses",
        "serving.app",
        "serving.body_limit",
        "serving.bound_server",
        "serving.compat.dialect",
        "serving.error_bodies",
        "serving.hosts",
        "serving.page.routes",
        "serving.telemetry",
        "serving.tracing",
    },
    "typer": {"cli", *VERBS - {"commands.baseline", "commands.etl"}},
}
"""The modules of the package that import a heavy library, at their top or inside a function."""

CLI_IMPORTERS = {
    "__main__",
    *VERBS - {"commands.init", "commands.share", "commands.verify"},
    "studies.trials",
    "studies.worker",
}
"""The modules of the package that import `cli`, and so Typer: commands, and entry points of processes."""


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


def test_importing_the_package_imports_nothing_else() -> None:
    program = "import sys, bankintent; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    before = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = set(done.stdout.split()) - set(before.stdout.split())
    others = {name for name in imported if name.split(".")[0] not in sys.stdlib_module_names}
    assert others == {"bankintent"}


def test_type_checkers_read_of_the_same_names_in_the_same_modules() -> None:
    stub = ast.parse((REPOSITORY / "bankintent" / "__init__.pyi").read_text(encoding="utf-8"))
    homes = {}
    for node in stub.body:
        if isinstance(node, ast.ImportFrom):
            homes |= {alias.name: node.module for alias in node.names}
    assert homes == bankintent.HOMES

    names = next(ast.literal_eval(node.value) for node in stub.body if isinstance(node, ast.Assign))
    assert sorted(names) == sorted(bankintent.__all__)


def test_the_package_offers_the_api_and_uses_none_of_it() -> None:
    homes = {".".join(home.split(".")[:2]) for home in bankintent.HOMES.values()}
    assert homes == {"bankintent.api", "bankintent.errors", "bankintent.explanation"}

    public = {f"bankintent.{name}" for name in bankintent.__all__} - {"bankintent.__version__"}
    for module, imported in modules():
        assert not imported & public, module


def test_the_package_imports_no_file_at_the_top_and_no_tool() -> None:
    above = {*COMMANDS, *TOOLS}
    for module, imported in modules():
        assert not {name.split(".")[0] for name in imported} & above, module


def test_commands_import_no_commands() -> None:
    for module, imported in modules():
        if module.removeprefix("bankintent.") in VERBS:
            assert not {name for name in imported if name.startswith("bankintent.commands")}, module


@pytest.mark.parametrize("name", COMMANDS)
def test_a_file_at_the_top_holds_no_second_copy_of_a_command(name: str) -> None:
    imported = imports(REPOSITORY / f"{name}.py")
    own = {module for module in imported if module.startswith("bankintent")}
    assert {".".join(module.split(".")[:2]) for module in own} <= {
        "bankintent",
        "bankintent.cli",
        "bankintent.commands",
    }
    assert not {module.split(".")[0] for module in imported} & {*COMMANDS, *TOOLS}


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
    [
        "bankintent.training.rows",
        "bankintent.training.identity",
        "bankintent.training.processes",
        "bankintent.studies.plan",
    ],
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
    # The folds of a cross-validation, arrays alone, are a part of what ETL wrote, and so are rows
    # that stay on disk.
    modules = {".".join(module.split(".")[:3]) for module in own}
    assert modules <= {"bankintent.corpus.folds", "bankintent.corpus.mapped"}
