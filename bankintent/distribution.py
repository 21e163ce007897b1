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
}
"""Extra of pyproject.toml -> the modules that it brings, which `pip install bankintent` lacks."""


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


def lacks(module: str, what: str = "this command") -> MissingPackage:
    """The error of a module that is not installed, with the line that installs it."""
    return MissingPackage(
        f"{what} needs {module}, which is not installed", f"Run {install_line(module)}"
    )


def install_line(module: str) -> str:
    """What a user types to have a module of EXTRAS."""
    [extra] = [name for name, modules in EXTRAS.items() if module in modules]
    return install_extra(extra)


def install_extra(extra: str) -> str:
    """What a user types to have everything of an extra."""
    if not is_installed():
        return "pip install -r requirements.txt"
    return f"pip install '{PROGRAM}[{extra}]'"


def missing_package(error: BaseException) -> MissingPackage | None:
    """The error in one line where a module of EXTRAS is not installed, otherwise None.

    An installed library whose own import fails is not meant: its traceback is needed.
    """
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return None

    is_ours = any(error.name in modules for modules in EXTRAS.values())
    if not is_ours or importlib.util.find_spec(error.name) is not None:
        return None
    return lacks(error.name)


@contextlib.contextmanager
def naming_missing_packages() -> Iterator[None]:
    """Within the block an import that fails for want of an extra raises MissingPackage."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = missing_package(error)
        if missing is None:
            raise
        raise missing from None
