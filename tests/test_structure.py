"""The architecture: imports point one way, MLflow has one importer, and nothing speaks of where it was made."""

import ast
import re
import subprocess
from pathlib import Path

from conftest import REPOSITORY

COMMANDS = ("etl", "multiregime", "baseline", "eval", "backend", "frontend")
RANKS = {
    "corpus": 1,
    "measures": 1,
    "bundle": 2,
    "inference": 3,
    "scoring": 4,
    "export": 4,
    "training": 5,
    "serving": 6,
    "studies": 6,
    "baselines": 6,
    "gradio_app": 7,
}
"""Rooms of the package; its own modules (config, labels, tracking, ...) have rank 0."""


def imports(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(module: str) -> str:
    part = module.split(".")[1] if module.startswith("bankintent.") else ""
    return part if part in RANKS else ""


def package_files() -> list[Path]:
    return sorted((REPOSITORY / "bankintent").rglob("*.py"))


def test_imports_point_one_way() -> None:
    wrong = []
    for path in package_files():
        module = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
        if module == "bankintent.__main__":
            continue
        own = room(module)
        for imported in imports(path):
            if imported.split(".")[0] in COMMANDS:
                wrong.append(f"{module} imports the command {imported}")
            other = room(imported)
            if other and other != own and RANKS[other] >= RANKS.get(own, 0):
                wrong.append(f"{module} imports {imported}")
    assert not wrong


def test_commands_do_not_import_commands() -> None:
    for name in COMMANDS:
        path = REPOSITORY / f"{name}.py"
        if path.exists():
            assert not {module.split(".")[0] for module in imports(path)} & set(COMMANDS)


def test_heavy_libraries_stay_in_their_rooms() -> None:
    allowed = {
        "mlflow": {"tracking.py"},
        "torch": {"inference", "training", "export", "baselines", "studies"},
        "matplotlib": {"measures"},
        "gradio": {"gradio_app"},
        "pandas": {"gradio_app"},
    }
    for path in package_files():
        place = path.relative_to(REPOSITORY / "bankintent").parts[0]
        for imported in imports(path):
            library = imported.split(".")[0]
            assert place in allowed.get(library, {place}), f"{path} imports {library}"


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
