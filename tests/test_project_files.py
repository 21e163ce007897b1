"""The files around the code: licenses and versions agree, the workflow runs what it should, CONTRIBUTING is true."""

import re
import tomllib
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY

import bankintent
from bankintent.bundle import attribution

WORKFLOW = ".github/workflows/ci.yml"

CONTRIBUTING = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
CHANGELOG = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")


def read(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def project() -> dict[str, Any]:
    return tomllib.loads(read("pyproject.toml"))["project"]


def citation() -> dict[str, Any]:
    return yaml.safe_load(read("CITATION.cff"))


def jobs() -> dict[str, Any]:
    return yaml.safe_load(read(WORKFLOW))["jobs"]


def commands(job: str) -> list[str]:
    return [step["run"] for step in jobs()[job]["steps"] if "run" in step]


# Versions


def test_the_version_is_the_same_everywhere() -> None:
    settings = tomllib.loads(read("pyproject.toml"))
    assert settings["project"]["dynamic"] == ["version"]
    assert settings["tool"]["hatch"]["version"]["path"] == "bankintent/__init__.py"
    assert str(citation()["version"]) == bankintent.__version__

    newest, day = re.findall(r"^## \[([\d.]+)\] - (\d{4}-\d\d-\d\d)$", CHANGELOG, re.M)[0]
    assert newest == bankintent.__version__
    assert citation()["date-released"] == day


def test_the_changelog_has_a_place_for_what_comes_next() -> None:
    headings = re.findall(r"^## \[(.*?)\]", CHANGELOG, re.M)
    assert headings[0] == "Unreleased"
    assert len(set(headings)) == len(headings)
    kinds = set(re.findall(r"^### (.*)$", CHANGELOG, re.M))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


# Licenses


def test_the_license_of_the_code_is_the_same_everywhere() -> None:
    assert read("LICENSE").startswith("MIT License\n\nCopyright (c) 2026 the bankintent authors\n")
    assert project()["license"] == "MIT AND CC-BY-4.0"
    assert project()["license-files"] == ["LICENSE"]
    assert citation()["license"] == "MIT"
    assert "code MIT ([LICENSE](LICENSE))" in CONTRIBUTING
    assert "MIT" in read("README.md")


def test_what_comes_from_others_keeps_its_license() -> None:
    about = read("data/bundled/README.md")
    assert about.count("https://creativecommons.org/licenses/by/4.0/") == 2  # sentences, general
    assert "PolyAI, CC BY 4.0" in about
    assert attribution.BUNDLED.license == attribution.BANKING77.license == "CC BY 4.0"
    assert "PolyAI" in attribution.BUNDLED.credit
    assert "`data/bundled` CC BY 4.0" in CONTRIBUTING

    # A model that was trained from it is under its license, not under that of the code.
    encoder = attribution.public_name("bundled/all-MiniLM-L6-v2")
    assert attribution.license_of(encoder, [attribution.BUNDLED]) == "apache-2.0"


# The workflow


def test_the_workflow_calls_what_runs_anywhere_else() -> None:
    assert commands("everything") == [".ci/run"]
    assert (REPOSITORY / ".ci" / "run").stat().st_mode & 0o111
    assert commands("newest-python") == ["make test"]


def test_the_workflow_runs_for_changes_and_may_only_read() -> None:
    workflow = yaml.safe_load(read(WORKFLOW))
    # YAML 1.1 takes `on` for a truth value.
    assert {"push", "pull_request"} <= workflow[True].keys()
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["cancel-in-progress"] is True


@pytest.mark.parametrize("job", ["everything", "newest-python"])
def test_a_job_ends_and_names_the_versions_of_what_it_uses(job: str) -> None:
    settings = jobs()[job]
    assert 0 < settings["timeout-minutes"] <= 180
    assert re.fullmatch(r"ubuntu-\d\d\.\d\d", settings["runs-on"])

    for step in settings["steps"]:
        if "uses" in step:
            assert re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"])


def test_the_workflow_has_the_oldest_and_the_newest_python_that_are_declared() -> None:
    used = []
    for job in jobs().values():
        used += [step["with"]["python-version"] for step in job["steps"] if "setup" in str(step)]
    declared = re.findall(r"Python :: (3\.\d+)", read("pyproject.toml"))
    assert used == [declared[0], declared[-1]]
    assert project()["requires-python"] == f">={declared[0]}"


# CONTRIBUTING


def test_every_file_that_contributing_names_exists() -> None:
    words = re.findall(r"`([^`\n]+)`", CONTRIBUTING) + re.findall(r"\]\(([^)]+)\)", CONTRIBUTING)
    paths = {word for word in words if re.fullmatch(r"\.?[\w./-]+(\.\w+|/|/run)", word)}
    paths = {path for path in paths if "/" in path or (REPOSITORY / path).exists()}
    assert len(paths) > 30
    assert not {path for path in paths if not (REPOSITORY / path).exists()}


def test_every_target_that_contributing_names_is_one_of_make() -> None:
    targets = set(re.findall(r"`make ([a-z-]+)`", CONTRIBUTING))
    assert {"test", "check", "proofs", "reference", "docs"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", read("Makefile"), re.M), target


NAMED = {
    "RANKS": "tests/test_structure.py",
    "IMPORTERS": "tests/test_structure.py",
    "CLI_IMPORTERS": "tests/test_structure.py",
    "OTHERS": "tests/test_decisions_everywhere.py",
    "PREDICTING": "tests/test_decisions_everywhere.py",
    "EXPORTS": "tests/test_platform_sentences.py",
    "TITLES": "docs/tools/http_page.py",
    "TOOLS": "bankintent/corpus/formats/registry.py",
    "LAYOUTS": "bankintent/corpus/formats/registry.py",
    "READS_FIRST_TOKEN": "bankintent/training/architectures.py",
    "REFUSED": "bankintent/training/architectures.py",
    "REFUSED_REGIMES": "bankintent/training/architectures.py",
    "BACKBONE_LICENSES": "bankintent/bundle/attribution.py",
    "WITHOUT_EFFECT": "bankintent/training/identity.py",
    "_without_what_is_off": "bankintent/training/identity.py",
    "VERBS": "bankintent/__main__.py",
    "RuntimeName": "bankintent/config/base.py",
    "KINDS": "bankintent/inference/exported_runtime.py",
    "GRAPHS": "bankintent/bundle/verification.py",
    "SPEEDS": "bankintent/bundle/formats.py",
    "PRECISIONS": "bankintent/bundle/formats.py",
    "SHOWN": "bankintent/measures/metrics.py",
    "NO_SHARES": "bankintent/measures/metrics.py",
}
"""Names that CONTRIBUTING sends people to, and the file in which each is."""


def test_every_name_that_contributing_says_is_where_it_says() -> None:
    said = set(re.findall(r"`(_?[A-Za-z]*[A-Z_][A-Za-z_]+)`", CONTRIBUTING))
    said -= {"UserError", "FORMAT", "model_name"}
    assert said == NAMED.keys()
    for name, path in NAMED.items():
        assert re.search(rf"^(?:def )?{name}\b", read(path), re.M), name
        assert path in CONTRIBUTING, path
