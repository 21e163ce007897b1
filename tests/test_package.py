"""The package: what it declares, what is in the wheel, and what works where only some of it is installed."""

import functools
import importlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from conftest import REPOSITORY, BuildOnce, Run
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from policy_fixtures import make_record, put_policy
from test_structure import modules, room

import etl
import multiregime
from bankintent import __version__, config_hints, distribution
from bankintent.bundle import layout
from bankintent.config import AuditConfig, DataConfig, TrainConfig
from bankintent.configfile import load
from bankintent.errors import ConfigError, MissingPackage
from bankintent.first_steps import libraries, package_ranges
from bankintent.inference import choice
from bankintent.labels import LabelSchema

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]

MODULES_OF_OTHERS = {"pydantic_core": "pydantic"}
"""Module -> the package that pins the one that it is of, exactly."""

OPTIONAL = {"bankintent.serving.tracing": "otel"}
"""Module of a light room -> the extra without which it says what is missing."""

LIGHT_ROOMS = {"serving", "scoring", "explanation", "api"}
"""Rooms that the extra `serve` is for."""


def declared(extra: str = "") -> dict[str, Requirement]:
    """Canonical name -> requirement, of the package itself or of one of its extras alone."""
    lines = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    requirements = map(Requirement, lines)
    return {
        canonicalize_name(each.name): each for each in requirements if each.name != "bankintent"
    }


EVERYTHING = (
    declared() | declared("serve") | declared("train") | declared("page") | declared("otel")
)


def pinned() -> dict[str, Requirement]:
    """Canonical name -> the line of requirements.txt."""
    lines = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if line and line[0] not in "#-"]
    return {canonicalize_name(each.name): each for each in requirements}


def pinned_version(requirement: Requirement) -> str:
    return str(requirement.specifier).removeprefix("==")


@functools.cache
def third_party() -> list[tuple[str, str]]:
    """Each module of the package, and each module of another package that it imports."""
    found = []
    for module, imported in modules():
        for name in sorted({each.partition(".")[0] for each in imported}):
            if name not in sys.stdlib_module_names and name != "bankintent":
                found.append((module, name))
    return found


@functools.cache
def installed_packages() -> Mapping[str, list[str]]:
    """Module -> the packages that have brought it."""
    return importlib.metadata.packages_distributions()


def packages_of(module: str) -> set[str]:
    """The canonical names of the packages that a module may be of."""
    if module in MODULES_OF_OTHERS:
        return {MODULES_OF_OTHERS[module]}
    return {canonicalize_name(name) for name in installed_packages()[module]}


def test_every_pin_lies_in_its_declared_range() -> None:
    for name, requirement in pinned().items():
        version = pinned_version(requirement)
        assert EVERYTHING[name].specifier.contains(version), f"{name} {version}"


def test_the_pinned_packages_are_those_of_all_extras() -> None:
    assert pinned().keys() == EVERYTHING.keys()
    for name, requirement in pinned().items():
        assert str(requirement.marker) == str(EVERYTHING[name].marker), name
    assert PROJECT["optional-dependencies"]["all"] == ["bankintent[train,page,otel]"]


def test_a_range_has_two_ends() -> None:
    """Without an upper end a new major version would break an installation of last year."""
    for name, requirement in EVERYTHING.items():
        operators = {each.operator for each in requirement.specifier}
        # Its versions are years.
        wanted = {">="} if name == "packaging" else {">=", "<"}
        assert operators in (wanted, {"=="}), name


def test_no_package_is_named_by_two_extras_with_other_ranges() -> None:
    for name in declared("page").keys() & declared("train").keys():
        assert declared("page")[name].specifier == declared("train")[name].specifier


def test_the_builder_is_the_one_that_is_tested() -> None:
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    [builder] = tomllib.loads(text)["build-system"]["requires"]
    assert builder in (REPOSITORY / "requirements-dev.txt").read_text(encoding="utf-8").splitlines()


def test_every_imported_module_is_of_a_declared_package() -> None:
    for module, name in third_party():
        packages = packages_of(name)
        of_all = declared().keys() & packages
        extras = [extra for extra, names in distribution.EXTRAS.items() if name in names]
        assert of_all or extras, f"{module} imports {name}"
        for extra in extras:
            assert declared(extra).keys() & packages, f"{name} is of no package of [{extra}]"
            assert not of_all, f"{name} is always there"


def test_the_table_of_modules_names_no_others() -> None:
    imported = {name for _, name in third_party()}
    # What training imports without being named by a module of the package.
    imported |= {*libraries.NEEDED, "onnxscript"}
    for extra, names in distribution.EXTRAS.items():
        assert list(names) == sorted(names)
        assert not set(names) - imported, extra


def test_rooms_import_what_their_extra_brings() -> None:
    of_extra = {name: extra for extra, names in distribution.EXTRAS.items() for name in names}
    for module, name in third_party():
        extra = of_extra.get(name, "serve")
        if room(module) in LIGHT_ROOMS:
            assert extra == OPTIONAL.get(module, "serve") or extra == "serve", (
                f"{module} imports {name}"
            )
        if extra == "page":
            assert room(module) == "gradio_app", f"{module} imports {name}"
        if room(module) == "gradio_app" and extra == "train":
            assert declared("page").keys() & packages_of(name), f"{module} imports {name}"


def test_what_a_server_of_formats_needs_is_small() -> None:
    heavy = {
        "torch",
        "transformers",
        "mlflow",
        "gradio",
        "pandas",
        "openvino",
        "scikit-learn",
        "scipy",
    }
    assert not heavy & (declared() | declared("serve")).keys()


@pytest.fixture(scope="module")
def wheel(build_once: BuildOnce) -> Path:
    """The wheel, built from the files that are here."""

    def build(folder: Path) -> None:
        hatch("wheel", folder, REPOSITORY)

    return next(build_once("wheel", build).glob("*.whl"))


def hatch(target: str, folder: Path, root: Path) -> None:
    """Build the wheel or the sdist of a source tree into a folder, without a network."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def unpacked(wheel: Path, build_once: BuildOnce) -> Path:
    """A folder to import the package from as pip installs it, beside all other packages."""

    def unpack(folder: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)  # noqa: S202 - built above

    return build_once("unpacked", unpack)


def installed(
    unpacked: Path, *words: object, file: tuple[object, ...] = ("-m", "bankintent")
) -> "subprocess.CompletedProcess[str]":
    """Run the unpacked package in the working folder."""
    env = os.environ | {"PYTHONPATH": str(unpacked), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, file), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=env)


def test_the_wheel_has_the_package_and_what_it_reads(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        for name in names:
            _, shipped, rest = name.partition("bankintent/shipped/")
            source = REPOSITORY / (rest if shipped else name)
            assert archive.read(name) == source.read_bytes(), name

    tracked = subprocess.run(
        ["git", "ls-files", "bankintent", "configs"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=True,
    ).stdout.split()
    package = {name for name in tracked if name.startswith("bankintent/")}
    configs = {f"bankintent/shipped/{name}" for name in tracked if name.startswith("configs/")}
    data = {
        f"bankintent/shipped/data/bundled/{name}"
        for name in ("sentences.csv", "general.csv", "README.md")
    }
    assert package | configs | data <= names
    assert {name.partition("/")[0] for name in names} == {"bankintent"}
    assert "bankintent/py.typed" in names


def test_the_source_distribution_gives_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    import tarfile

    hatch("sdist", tmp_path, REPOSITORY)
    [archive] = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(tmp_path, filter="data")
    hatch("wheel", tmp_path / "again", tmp_path / archive.name.removesuffix(".tar.gz"))
    [again] = (tmp_path / "again").iterdir()
    assert again.read_bytes() == wheel.read_bytes()


def test_the_metadata_are_whole(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = f"bankintent-{__version__}.dist-info"
        metadata = archive.read(f"{info}/METADATA").decode()
        assert (
            "bankintent = bankintent.__main__:main"
            in archive.read(f"{info}/entry_points.txt").decode()
        )
        assert archive.read(f"{info}/licenses/LICENSE") == (REPOSITORY / "LICENSE").read_bytes()
    assert f"\nVersion: {__version__}\n" in metadata
    assert "\nLicense-Expression: MIT" in metadata
    assert re.findall("^Provides-Extra: (.*)$", metadata, re.M) == [
        "all",
        "otel",
        "page",
        "ray",
        "serve",
        "train",
    ]


def test_importing_the_package_imports_nothing_else() -> None:
    program = "import sys; import bankintent; print(*sorted(sys.modules))"
    # Without `site`, which imports what other packages have put into .pth files.
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=True,
    )
    names = {name.partition(".")[0] for name in done.stdout.split()}
    assert names - sys.stdlib_module_names - {"__main__"} == {"bankintent"}


@pytest.mark.proof
def test_the_data_come_with_the_installed_package(unpacked: Path, tmp_path: Path, run: Run) -> None:
    words = ("etl", "--config", "configs/quickstart/data.yaml", "--set", "output_dir=there")
    done = installed(unpacked, *words)
    assert done.returncode == 0, done.stderr
    name = "configs/quickstart/data.yaml"
    assert done.stderr.splitlines() == [
        f"{name} is the one that comes with bankintent {__version__}"
    ]

    here = run(etl.main, "--config", REPOSITORY / name, "--set", "output_dir=here")
    assert here.code == 0
    for file in ("manifest.json", "labels.json"):
        one, other = ((tmp_path / folder / file).read_text() for folder in ("here", "there"))
        assert one.replace('"here"', '"there"') == other


def test_a_config_of_the_user_wins(unpacked: Path, tmp_path: Path) -> None:
    own = tmp_path / "configs" / "quickstart" / "data.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("dataset_name: none.csv\n")
    done = installed(unpacked, "etl", "--config", "configs/quickstart/data.yaml")
    assert done.returncode == 2
    assert done.stderr.startswith("error: none.csv does not exist")


@pytest.mark.parametrize("name", ["configs/none.yaml", "../../pyproject.toml", "configs"])
def test_other_names_are_no_configs_of_the_package(
    name: str, monkeypatch: pytest.MonkeyPatch, unpacked: Path
) -> None:
    monkeypatch.setattr(distribution, "SHIPPED", unpacked / "bankintent" / "shipped")
    with pytest.raises(Exception, match="does not exist"):
        load(TrainConfig, Path(name))


def test_configs_that_the_package_brings_are_named(
    unpacked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distribution, "SHIPPED", unpacked / "bankintent" / "shipped")
    for kind, config in (("data", DataConfig), ("train", TrainConfig), ("audit", AuditConfig)):
        for path in (Path("none.yaml"), Path()):
            with pytest.raises(ConfigError) as error:
                load(config, path)
            _, _, listed = str(error.value).partition("one that the package brings: ")
            first = listed.split(",")[0].rstrip(".")
            assert config_hints.shipped_examples(kind)[0] == first
            assert (distribution.SHIPPED / first).is_file()

    assert config_hints.shipped_examples("train")[0].startswith("configs/recommended/")
    assert config_hints.shipped_examples("data")[0] == "configs/recommended/data.yaml"
    assert config_hints.examples("ScoreConfig") == "Name a config file of your own"


def test_from_the_repository_no_other_config_is_taken(tmp_path: Path, run: Run) -> None:
    message = run(multiregime.main, "--config", "configs/train.yaml").one_line_error()
    assert "configs/train.yaml does not exist" in message


def test_messages_name_the_installed_program(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert distribution.command("etl") == "python -m etl"
    assert distribution.command("score") == "python -m bankintent score"
    monkeypatch.setattr(sys, "argv", ["/venv/bin/bankintent"])
    assert distribution.command("etl") == "bankintent etl"
    monkeypatch.setattr(sys, "argv", ["x"])
    monkeypatch.setattr(distribution, "SHIPPED", tmp_path)
    assert distribution.command("etl") == "bankintent etl"


@pytest.fixture(scope="module")
def served(published: Path, build_once: BuildOnce) -> Path:
    """A bundle with exported formats, and a policy that answers nothing."""

    def build(folder: Path) -> None:
        bundle = Path(shutil.copytree(published / "bundle", folder / "tiny"))
        labels = LabelSchema.load(bundle / layout.LABELS).names
        put_policy(bundle, make_record(labels))

    return build_once("served-formats", build) / "tiny"


LACKING = REPOSITORY / "tests" / "lacking.py"

NOT_OF_SERVE = ",".join(
    # The client of the test itself asks with httpx.
    name
    for extra in ("train", "page")
    for name in distribution.EXTRAS[extra]
    if name not in ("httpx", "httpx2")
)


def test_without_extras_a_bundle_is_verified_and_this_machine_checked(
    unpacked: Path, served: Path
) -> None:
    # Rich brings it.
    absent = [
        name for names in distribution.EXTRAS.values() for name in names if name != "markdown_it"
    ]
    words = ("--version", "--then", "verify", served, "--then", "doctor")
    done = installed(unpacked, *words, file=(LACKING, ",".join(absent)))
    assert f"bankintent {__version__}" in done.stdout
    assert "as published" in done.stdout
    assert "not installed: numpy" in done.stdout
    assert done.returncode == 1


def test_with_serve_alone_a_bundle_is_used_from_the_command_line(
    unpacked: Path, served: Path, tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_text("text\nmy card\nthe rate\n")
    model = ("--model-dir", served)
    done = installed(
        unpacked,
        *("verify", served),
        *("--then", "explain", "my card has not arrived", *model),
        *("--then", "score", "in.csv", "out.parquet", *model),
        *("--then", "policy", *model, "--restore", "0123"),
        file=(LACKING, NOT_OF_SERVE),
    )
    assert "as published" in done.stdout
    assert "my card has not arrived" in done.stdout
    assert (tmp_path / "out.parquet").is_file()
    assert done.returncode == 2
    assert done.stderr == f"error: {served} has no former policy 0123. Former ones: none.\n"


def test_with_serve_alone_the_api_answers(unpacked: Path, served: Path, tmp_path: Path) -> None:
    program = f"""
import sys
sys.path.insert(0, {str(LACKING.parent)!r})
import lacking
lacking.block({NOT_OF_SERVE!r})
from starlette.testclient import TestClient
from bankintent import load
from bankintent.commands.serve import create_app
with TestClient(create_app()) as client:
    while client.get("/health/ready").status_code != 200:
        pass
    body = {{"text": ["my card has not arrived", "pin"], "explain": True}}
    answers = client.post("/predict/", json=body).json()
    pages = [client.get(path).status_code for path in ("/", "/card", "/docs", "/openapi.json")]
print(len(answers), sorted(answers[0]), pages)
print(load({str(served)!r}).predict("my card has not arrived").answer)
"""
    env = os.environ | {
        "PYTHONPATH": str(unpacked),
        "MODEL_DIR": str(served),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].endswith("[200, 200, 200, 200]")
    assert "'decision'" in lines[0]


def one_line(done: "subprocess.CompletedProcess[str]") -> str:
    """The only line of a refused command beside those that name configs of the package."""
    assert done.returncode == 2, done.stdout + done.stderr
    lines = done.stderr.splitlines()
    [line] = [line for line in lines if " is the one that comes with " not in line]
    return line


@pytest.mark.parametrize(
    ("lacks", "words", "extra"),
    [
        ("torch", "train --config configs/recommended/lora.yaml", "train"),
        ("scipy", "etl --config configs/quickstart/data.yaml", "train"),
        ("gradio", "page --model-dir none", "page"),
        ("uvicorn", "serve --model-dir none", "serve"),
        ("torch", "compare --config configs/quickstart/compare.yaml", "train"),
        ("numpy", "explain x --model-dir none", "serve"),
        # A module of `serve`, of a command that needs one of `train` next.
        ("pyarrow", "init none.csv", "train"),
        ("pyarrow", "compare-models a b --data none.csv", "train"),
    ],
)
def test_what_is_not_installed_is_named_with_its_extra(
    lacks: str, words: str, extra: str, unpacked: Path
) -> None:
    done = installed(unpacked, *words.split(), file=(LACKING, lacks))
    message = one_line(done)
    assert (
        f"needs {lacks}, which is not installed. Run pip install 'bankintent[{extra}]'." in message
    )


def test_from_the_repository_the_requirements_are_installed(
    monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)

    def command() -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    message = run(command).one_line_error()
    assert message == (
        "error: this command needs torch, which is not installed. Run pip install -r requirements.txt."
    )


def test_each_command_has_one_extra_that_includes_those_of_its_modules() -> None:
    commands = {path.stem for path in (REPOSITORY / "bankintent" / "commands").glob("*.py")}
    assert distribution.NEEDS.keys() == commands - {"__init__", "verify"}

    for extra, brought in distribution.BRINGS.items():
        packages = (declared(extra) | declared("serve")).keys()
        for module in brought:
            assert packages & packages_of(module), f"[{extra}] does not bring {module}"
        assert brought >= {*distribution.EXTRAS[extra], *distribution.EXTRAS["serve"]}


@pytest.mark.parametrize(
    ("module", "extra", "advised"),
    [
        ("numpy", "train", "train"),
        ("numpy", "page", "page"),
        ("scipy", "page", "page"),
        ("torch", "serve", "train"),
        ("numpy", None, "serve"),
    ],
)
def test_the_extra_of_the_command_is_advised_where_it_brings_the_module(
    module: str, extra: str | None, advised: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distribution, "SHIPPED", tmp_path)
    line = str(distribution.lacks(module, extra=extra))
    assert line.endswith(f"Run pip install 'bankintent[{advised}]'.")


def test_an_import_that_fails_within_a_library_keeps_its_traceback(run: Run) -> None:
    def within() -> None:
        raise ModuleNotFoundError("No module named 'torch._C'", name="torch._C")

    with pytest.raises(ModuleNotFoundError):
        run(within)

    def unknown() -> None:
        importlib.import_module("no_such_module")

    with pytest.raises(ModuleNotFoundError):
        run(unknown)

    def installed_but_broken() -> None:
        raise ModuleNotFoundError("No module named 'numpy'", name="numpy")

    with pytest.raises(ModuleNotFoundError):
        run(installed_but_broken)


def test_a_runtime_that_is_not_installed_is_refused_before_it_is_loaded(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Path(shutil.copytree(served / "merged", tmp_path / "plain"))
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" else find_spec(name)
    )
    with pytest.raises(
        MissingPackage, match=r"^runtime: torch needs torch, which is not installed"
    ):
        choice.find(served, "torch")
    with pytest.raises(MissingPackage, match=r"holds no verified format .* needs torch"):
        choice.find(plain, "auto")
    assert choice.find(served, "auto").kinds


def test_doctor_of_an_installed_package_compares_with_what_it_declares(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = ["torch<3,>=2.13; extra == 'train'", "numpy<3,>=2", "gradio<7; extra == 'page'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: lines)
    versions = {"torch": "2.13.0+cpu", "numpy": "2.4.6"}
    monkeypatch.setattr(package_ranges, "find_version", versions.get)

    [found] = package_ranges.check_ranges("packages")
    assert (found.state, found.found) == ("ok", f"all 2 as bankintent {__version__} needs them")

    versions["numpy"] = "1.26.0"
    [found] = package_ranges.check_ranges("packages")
    assert (found.state, found.found) == (
        "note",
        "1 of 2 are others: numpy 1.26.0 (needed: <3,>=2)",
    )

    del versions["torch"]
    [found] = package_ranges.check_ranges("packages")
    assert (found.state, found.found) == ("problem", "not installed: torch")


def test_doctor_without_training_says_what_to_install(unpacked: Path) -> None:
    done = installed(unpacked, "doctor", file=(LACKING, "torch,peft"))
    assert done.returncode == 1
    [line] = [line for line in done.stdout.splitlines() if line.startswith("imports")]
    assert "not installed: torch, peft" in line
    assert "pip install 'bankintent[train]'" in line
