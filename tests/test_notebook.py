"""The walkthrough: its commands are those of the shell, its outputs are saved, and what executes it keeps no trace."""

import ast
import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import nbformat
import pytest
import typer
from conftest import REPOSITORY
from nbformat.v4 import new_code_cell, new_notebook, new_output
from typer.main import get_command

from bankintent import cli, config, configfile
from bankintent.errors import ConfigError, OutputError
from notebooks import colab, execute

NOTEBOOK = REPOSITORY / "notebooks" / "walkthrough.ipynb"
STUDIES = ("walkthrough", "walkthrough-hub")
MAGIC = re.compile(r"%%(bash|script python)\b.*\n")


@pytest.fixture(scope="module")
def book() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def code(book: Any, magic: str = "") -> list[str]:
    """Sources of the code cells under a cell magic, without it; of those in Python where none is named."""
    sources = [cell.source for cell in book.cells if cell.cell_type == "code"]
    if magic:
        return [source.partition("\n")[2] for source in sources if source.startswith(magic)]
    return [source for source in sources if not source.startswith("%%")]


def commands(book: Any) -> list[list[str]]:
    """Every `python -m ...` of the shell cells and of the processes that Python cells start, as words after -m."""
    text = "\n".join(code(book, "%%bash")).replace("\\\n", " ")
    found = [shlex.split(line)[2:] for line in text.splitlines() if line.startswith("python -m ")]
    for source in code(book):
        found += [
            [
                getattr(word, "value", "1") for word in node.elts[2:]
            ]  # 1 stands for what a variable will hold
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.List)
            and [getattr(word, "value", "") for word in node.elts[:2]] == ["python", "-m"]
        ]
    return found


def test_the_notebook_is_valid_and_saved_without_errors(book: Any) -> None:
    nbformat.validate(book)
    assert NOTEBOOK.stat().st_size < 1_500_000
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert (
        sum("image/png" in output.get("data", {}) for output in outputs) == 3
    )  # comparison, calibration, page
    assert not re.search(r"\x1b|<iframe|127\.0\.0\.1:\d+/\?|Traceback", "".join(map(str, outputs)))


def test_the_saved_outputs_are_of_the_present_config(book: Any) -> None:
    shown = [
        cell.outputs[0].text
        for cell in book.cells
        if cell.source.endswith("cat configs/$STUDY/compare.yaml")
    ]
    assert shown == [
        (REPOSITORY / "configs/walkthrough/compare.yaml").read_text(encoding="utf-8")
    ]  # else: make notebook


def test_no_output_names_a_machine(book: Any) -> None:
    before = nbformat.writes(book)
    execute.tidy(book)
    assert nbformat.writes(book) == before


def test_the_readme_and_the_notebook_name_the_address_of_pyproject(book: Any) -> None:
    address = colab.read_address(REPOSITORY)
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"https://colab\S+blob\S+", readme) == re.findall(
        r"https://colab\S+blob\S+", colab.badge(address)
    )  # else: make badge
    assert code(book)[0].startswith(f'REPO_URL = "{address}"\n')


def test_an_address_is_put_in_and_taken_out_again(tmp_path: Path) -> None:
    readme, notebook = tmp_path / "README.md", tmp_path / "walkthrough.ipynb"
    readme.write_text("# bankintent\n\nText\n")
    before = NOTEBOOK.read_text(encoding="utf-8")
    notebook.write_text(before, encoding="utf-8")
    for address in ("https://github.com/someone/intents", "https://github.com/another/intents"):
        colab.write_badge(readme, address)
        colab.write_notebook(notebook, address)
        title, badge, text = readme.read_text().strip().split("\n\n")
        assert badge.count(address.removeprefix("https://github.com/")) == 1
        assert code(nbformat.read(notebook, as_version=4))[0].startswith(
            f'REPO_URL = "{address}"\n'
        )
        assert (title, text) == ("# bankintent", "Text")
    colab.write_badge(readme, "")
    colab.write_notebook(notebook, "")
    assert readme.read_text() == "# bankintent\n\nText\n"
    assert nbformat.read(notebook, as_version=4) == nbformat.reads(before, as_version=4)


@pytest.mark.parametrize("address", ["https://example.org/someone/intents", "someone/intents"])
def test_an_address_elsewhere_than_on_github_is_refused(tmp_path: Path, address: str) -> None:
    project = f'[project]\nname = "x"\n[project.urls]\nRepository = "{address}"\n'
    (tmp_path / "pyproject.toml").write_text(project)
    with pytest.raises(ConfigError, match=r"Expected https://github\.com/owner/name"):
        colab.read_address(tmp_path)


def test_the_notebook_defines_no_function_of_its_own(book: Any) -> None:
    for source in code(book) + code(book, "%%script python"):
        defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
        assert not [node for node in ast.walk(ast.parse(source)) if isinstance(node, defined)]
    assert all(MAGIC.match(cell.source) for cell in book.cells if cell.source.startswith("%%"))


def test_no_step_goes_unexplained(book: Any) -> None:
    kinds = [cell.cell_type for cell in book.cells]
    assert kinds[0] == "markdown"
    assert "ccc" not in "".join(
        "c" if kind == "code" else "m" for kind in kinds
    )  # never three code cells in a row


def test_every_command_is_one_of_the_shell(book: Any) -> None:
    known = {"etl", "multiregime", "eval", "backend", "bankintent"}
    called = [words for words in commands(book) if words[0] not in ("venv", "json.tool")]
    assert {words[0] for words in called} == known
    for name, *words in called:
        module, function = (
            ("bankintent.__main__", words.pop(0)) if name == "bankintent" else (name, "main")
        )
        app = typer.Typer(**cli.APP)
        app.command(context_settings=cli.CONTEXT)(
            getattr(importlib.import_module(module), function)
        )
        get_command(app).make_context(name, words)  # raises where an option or a value is none


@pytest.mark.parametrize("study", STUDIES)
def test_the_switch_chooses_between_two_whole_studies(book: Any, study: str) -> None:
    assert f'"{study}"' in "\n".join(code(book))
    folder = Path("configs") / study
    data = configfile.load(config.DataConfig, REPOSITORY / folder / "data.yaml")
    settings = configfile.load(config.CompareConfig, REPOSITORY / folder / "compare.yaml")
    assert (settings.name, settings.data_dir) == (study, data.output_dir)
    assert settings.folder == Path("artifacts/studies") / study
    assert settings.keep_models
    assert settings.tracking.experiment == study
    assert list(settings.recipes) == ["head-only", "lora", "full-ft"]
    for name, recipe in settings.recipes.items():
        run = configfile.load(config.TrainConfig, REPOSITORY / recipe)
        assert run.regime == name
        assert run.model_name.startswith("bundled/") == (study == "walkthrough")


def executed(text: str) -> Any:
    return new_notebook(
        cells=[new_code_cell("1", outputs=[new_output("stream", name="stdout", text=text)])]
    )


def test_paths_of_the_project_are_saved_relative_to_it() -> None:
    book = executed(f"Report: {REPOSITORY}/artifacts/report")
    execute.tidy(book)
    assert book.cells[0].outputs[0].text == "Report: artifacts/report"
    assert book.metadata == execute.METADATA


@pytest.mark.parametrize("path", ["/Users/someone/x.csv", "/tmp/x", "/content/bankintent"])
def test_another_path_of_the_machine_is_refused(path: str) -> None:
    with pytest.raises(OutputError, match=re.escape(path)):
        execute.tidy(executed(f"read {path}"))


def test_a_failing_command_fails_the_notebook_and_saves_nothing(
    tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "require_browser", lambda: None)
    source = tmp_path / "source.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("%%bash\necho the cause >&2; false")]), source)
    result = run(execute.main, source, "--output", tmp_path / "saved.ipynb")
    assert result.code == 2
    assert "the cause" in result.out
    assert result.err.startswith("error: a cell of source.ipynb failed")
    assert not (tmp_path / "saved.ipynb").exists()
