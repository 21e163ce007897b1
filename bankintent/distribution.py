"""How the package came here: files that come with it, names of its commands, packages it needs.

All depend on whether it runs from its repository or is installed.
"""

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

from bankintent.errors import MissingPackage

PROGRAM = "bankintent"
"""The program that an installed package has."""

PACKAGE = Path(__file__).parent

REPOSITORY = PACKAGE.parent
"""The repository, where the package runs from one; otherwise where it was installed."""

SHIPPED = PACKAGE / "shipped"
"""The same files in an installed package."""

FRONT_DOOR = {
    "etl": "etl",
    "train": "multiregime",
    "baseline": "baseline",
    "eval": "eval",
    "serve": "backend",
    "page": "frontend",
}
"""Verb -> the file at the top of the repository that runs it too."""

EXTRAS = {
    "serve": (
        "charset_normalizer",
        "fastapi",
        "fastapi_offline",
        "httptools",
        "jinja2",
        "markdown_it",
        "markupsafe",
        "numpy",
        "onnxruntime",
        "prometheus_client",
        "pyarrow",
        "python_calamine",
        "starlette",
        "tokenizers",
        "uvicorn",
    ),
    "train": (
        "accelerate",
        "cleanlab",
        "datasets",
        "duckdb",
        "httpx2",
        "huggingface_hub",
        "matplotlib",
        "mlflow",
        "onnx",
        "onnx_ir",
        "onnxscript",
        "openvino",
        "optuna",
        "peft",
        "py3langid",
        "scipy",
        "sklearn",
        "sqlalchemy",
        "threadpoolctl",
        "torch",
        "transformers",
    ),
    "page": ("gradio", "httpx"),
    "ray": ("ray",),
    "otel": ("opentelemetry",),
}
"""Extra of pyproject.toml -> the modules that it brings, which `pip install bankintent` lacks."""

BRINGS = {
    "serve": {*EXTRAS["serve"]},
    "train": {*EXTRAS["serve"], *EXTRAS["train"]},
    "page": {*EXTRAS["serve"], *EXTRAS["page"], "scipy"},
}
"""Extra -> the modules that are there with it, also those of the extras that it includes."""

NEEDS = {
    "audit": "train",
    "baseline": "train",
    "compare": "train",
    "compare_models": "train",
    "doctor": "train",
    "etl": "train",
    "evaluate": "train",
    "explain": "serve",
    "init": "train",
    "page": "page",
    "policy": "train",
    "score": "serve",
    "serve": "serve",
    "share": "train",
    "train": "train",
}
"""Module of a command -> the one extra that brings all that the command may need."""


REQUIREMENTS = {"ray": "requirements-ray.txt"}
"""The file at the top of the repository that has an extra which requirements.txt does not have."""


def is_installed() -> bool:
    """Whether the package runs without its repository, as pip installs it."""
    return SHIPPED.is_dir()


def shipped(name: str) -> Path:
    """A file or folder that comes with the package, by its path in the repository."""
    root = SHIPPED if is_installed() else REPOSITORY
    return root / name


def command(verb: str) -> str:
    """What the user at hand types for a verb: `bankintent etl`, or `python -m etl`."""
    called = Path(sys.argv[0]).stem
    if is_installed() or called == PROGRAM:
        return f"{PROGRAM} {verb}"

    file = FRONT_DOOR.get(verb)
    return f"python -m {file or f'{PROGRAM} {verb}'}"


def require(*modules: str, what: str = "this command") -> None:
    """Raise MissingPackage where one of these modules is not installed; none is imported.

    For modules that are imported late: what is missing is said before anything long is computed.
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise lacks(module, what)


def has(module: str) -> bool:
    """Whether a module is installed; it is not imported."""
    return importlib.util.find_spec(module) is not None


def lacks(module: str, what: str = "this command", extra: str | None = None) -> MissingPackage:
    """The error of a module that is not installed, with the line that installs it.

    That line has the `extra` of the command at hand where it brings the module: the module's own
    extra might lack what the command needs next.
    """
    if extra is None or module not in BRINGS[extra]:
        [extra] = [name for name, modules in EXTRAS.items() if module in modules]
    return MissingPackage(
        f"{what} needs {module}, which is not installed", f"Run {install_extra(extra)}"
    )


def install_extra(extra: str) -> str:
    """What a user types to have everything of an extra."""
    if not is_installed():
        return f"pip install -r {REQUIREMENTS.get(extra, 'requirements.txt')}"
    return f"pip install '{PROGRAM}[{extra}]'"


def missing_package(error: BaseException, extra: str | None = None) -> MissingPackage | None:
    """The error in one line where a module of EXTRAS is not installed, otherwise None.

    `extra` is that of the command at hand, as `lacks` takes it.
    An installed library whose own import fails is not meant: its traceback is needed.
    """
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return None

    is_ours = any(error.name in modules for modules in EXTRAS.values())
    if not is_ours or importlib.util.find_spec(error.name) is not None:
        return None
    return lacks(error.name, extra=extra)


@contextlib.contextmanager
def naming_missing_packages(extra: str) -> Iterator[None]:
    """Within the block, which needs an extra, a module that is not installed is MissingPackage."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = missing_package(error, extra)
        if missing is None:
            raise
        raise missing from None
