"""`python -m bankintent verify`: every file of a bundle is as published, or named in one line."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, Run
from faults import altered_bundles

import bankintent.__main__ as verbs
from bankintent import files
from bankintent.bundle import layout, verification
from bankintent.inference.exported_inputs import SETTINGS
from bankintent.inference.exported_runtime import KINDS


def test_a_bundle_as_published_is_said_to_be_so(published: Path, run: Run) -> None:
    result = run(verbs.verify, published / "bundle")
    assert result.code == 0, result.out + result.err
    count = len(files.list_files(published / "bundle"))
    assert result.out.startswith(f"{count} files, ")
    assert result.out.endswith("MB: as published\n")


def test_each_fault_has_a_line_and_the_code_is_2(bundle: Path, run: Run) -> None:
    (bundle / "merged" / "config.json").write_text("{}")
    (bundle / "metrics.json").unlink()
    (bundle / "new.txt").write_text("x")
    (bundle / "README.md").write_text("An owner's own words")
    result = run(verbs.verify, bundle)
    assert result.code == 2
    assert result.err == ""
    assert result.out.splitlines() == [
        "note: README.md was edited, as a card may be",
        "merged/config.json was changed since the bundle was published",
        "metrics.json is missing",
        "new.txt was added since the bundle was published",
    ]


def test_what_is_no_bundle_is_refused_in_one_line(tmp_path: Path, run: Run) -> None:
    assert "is no bundle" in run(verbs.verify, tmp_path).one_line_error()
    assert "is no bundle" in run(verbs.verify, tmp_path / "nowhere").one_line_error()


def test_no_alteration_of_a_bundle_goes_unseen() -> None:
    tally = altered_bundles.run(1000)
    assert tally.tried > 100
    assert not tally.gave_way


def test_the_formats_are_those_that_are_served() -> None:
    assert {name: kind.file for name, kind in KINDS.items()} == verification.GRAPHS
    assert verification.SETTINGS == SETTINGS


def test_verifying_imports_no_heavy_library(bundle: Path) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from bankintent.bundle import verification\n"
        f"print(verification.verify(Path({str(bundle)!r})).faults)\n"
        "print({'torch', 'transformers', 'mlflow'} & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert done.stdout.splitlines() == ["[]", "set()"], done.stderr


def test_every_file_of_a_bundle_has_the_mode_of_a_new_one(published: Path) -> None:
    new = published / "new-file"
    new.touch()
    wanted = stat.S_IMODE(new.stat().st_mode)
    new.unlink()
    for name in files.list_files(published / "bundle"):
        assert stat.S_IMODE((published / "bundle" / name).stat().st_mode) == wanted, name


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o002, 0o077])
def test_a_published_folder_has_the_modes_of_the_umask(umask: int, tmp_path: Path) -> None:
    program = (
        "import os, tempfile\n"
        "from pathlib import Path\n"
        "from bankintent import files\n"
        f"os.umask({umask})\n"
        "staging = Path(tempfile.mkdtemp(dir='.')).absolute()\n"
        "(staging / 'part').mkdir(mode=0o700)\n"
        "os.close(tempfile.mkstemp(dir=staging / 'part')[0])\n"
        "(staging / 'plain').touch()\n"
        "files.publish(staging, Path('final').absolute())\n"
        "with files.staged(Path('file')) as path:\n"
        "    path.touch(mode=0o600)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True)

    final = tmp_path / "final"
    for path in [final, *final.rglob("*"), tmp_path / "file"]:
        full = 0o777 if path.is_dir() else 0o666
        assert stat.S_IMODE(path.stat().st_mode) == full & ~umask, path


def test_a_bundle_names_no_place_of_its_machine(published: Path) -> None:
    """It was trained from a folder with an absolute path, in a folder of its own."""
    bundle = published / "bundle"
    places = [str(published), str(published.parent), str(Path.home())]
    for name in files.list_files(bundle):
        content = (bundle / name).read_bytes()
        for place in places:
            assert place.encode() not in content, (name, place)
    settings = layout.read_manifest(bundle).identity["settings"]
    assert settings["model_name"] == "tiny-bert"


def test_the_modules_of_an_adapter_are_in_order(published: Path) -> None:
    text = (published / "bundle" / "adapter" / "adapter_config.json").read_text()
    for key in ("target_modules", "modules_to_save"):
        names = json.loads(text)[key]
        assert names == sorted(set(names))
