"""Outputs are whole or not there, whenever a process dies, and one process at a time writes a place."""

import os
from pathlib import Path

import pytest

from bankintent import files
from bankintent.errors import OutputError


def folder(path: Path, content: str) -> Path:
    path.mkdir()
    (path / "file").write_text(content)
    return path


def test_publishing_replaces_the_old_folder(tmp_path: Path) -> None:
    final = folder(tmp_path / "final", "old")
    files.publish(folder(tmp_path / "staging", "new"), final)
    assert (final / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


@pytest.mark.parametrize("dies_at", [1, 2])
def test_a_death_between_the_renames_loses_nothing(
    dies_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final, staging = folder(tmp_path / "final", "old"), folder(tmp_path / "staging", "new")
    real, calls = Path.rename, []

    def rename(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == dies_at:
            raise SystemExit(137)
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(SystemExit):
            files.publish(staging, final)
    files.recover(final)
    assert (final / "file").read_text() == "old"
    files.publish(staging, final)
    assert (final / "file").read_text() == "new"


def test_text_is_written_beside_its_place_and_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    files.write_text(path, "old")

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk)
        with pytest.raises(OSError, match="No space"):
            files.write_text(path, "new")
    assert path.read_text() == "old"


def test_two_writers_of_one_place_are_kept_apart(tmp_path: Path) -> None:
    final = tmp_path / "bundle"
    with files.exclusive(final) as work:
        assert work == tmp_path / "bundle.work"
        with pytest.raises(OutputError, match="written by another process"), files.exclusive(final):
            pass
    with files.exclusive(final):
        pass
    assert list(tmp_path.iterdir()) == []
