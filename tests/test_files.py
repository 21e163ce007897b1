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


LARGE = b"x" * files.LINKED_BYTES


def bundle_like(path: Path) -> Path:
    """A folder with two large files of the same content, a large one of its own, and two cards."""
    for part in ("merged", "base"):
        (path / part).mkdir(parents=True)
        (path / part / "tokenizer.json").write_bytes(LARGE)
        (path / part / "README.md").write_text("card")
    (path / "merged" / "weights").write_bytes(LARGE[:-1] + b"y")
    return path


def test_a_linked_folder_takes_no_space_and_its_cards_are_its_own(tmp_path: Path) -> None:
    source = bundle_like(tmp_path / "source")
    target = tmp_path / "target"
    assert files.link_tree(source, target)

    assert files.list_files(target) == files.list_files(source)
    assert (target / "merged/weights").samefile(source / "merged/weights")
    (target / "merged/README.md").write_text("edited")
    assert (source / "merged/README.md").read_text() == "card"

    # What replaces a file leaves its other name alone.
    files.write_text(source / "merged/weights", "new")
    files.publish(folder(tmp_path / "staging", "new"), source)
    assert (target / "merged/weights").read_bytes() == LARGE[:-1] + b"y"


def test_without_hard_links_a_folder_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_disk(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_disk)
    source = bundle_like(tmp_path / "source")
    target = tmp_path / "target"
    assert not files.link_tree(source, target)
    assert (target / "merged/weights").read_bytes() == (source / "merged/weights").read_bytes()

    files.share_identical(source)
    assert files.list_files(source) == files.list_files(target)
    assert not (source / "merged/tokenizer.json").samefile(source / "base/tokenizer.json")


def test_large_files_of_one_content_are_stored_once(tmp_path: Path) -> None:
    path = bundle_like(tmp_path / "bundle")
    files.share_identical(path)
    files.share_identical(path)

    assert (path / "merged/tokenizer.json").samefile(path / "base/tokenizer.json")
    assert (path / "base/tokenizer.json").read_bytes() == LARGE
    assert (path / "merged/weights").read_bytes() == LARGE[:-1] + b"y"
    assert not (path / "merged/README.md").samefile(path / "base/README.md")
    assert len(files.list_files(path)) == 5
