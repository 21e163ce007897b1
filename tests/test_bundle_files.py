"""Files of a bundle are regular files inside it: what else stands in their place is never read."""

import os
from pathlib import Path

import pytest
from faults import bundle_files

from bankintent.bundle import inside, layout
from bankintent.errors import ModelError
from bankintent.serving.page.card import find_plots, read_card

FIRST = 2 * len(bundle_files.REPLACEMENTS)


def test_links_pipes_and_devices_in_place_of_a_file_are_not_read() -> None:
    tally = bundle_files.run(FIRST)
    assert tally.tried == FIRST
    assert not tally.gave_way


def test_what_stands_in_place_of_every_file_is_counted(tmp_path: Path) -> None:
    bundle = bundle_files.write_bundle(tmp_path / "bundle")
    names = set(bundle_files.READS)
    for path in inside.list_entries(bundle):
        assert path in names, f"tests/faults/bundle_files.py tries no {path}"


def test_a_sound_bundle_is_read_whole(tmp_path: Path) -> None:
    bundle = bundle_files.write_bundle(tmp_path / "bundle")
    for name, read in bundle_files.READS.items():
        assert read(bundle) != "nothing", name


def test_a_link_with_the_recorded_content_is_no_file_of_a_bundle(tmp_path: Path) -> None:
    bundle = bundle_files.write_bundle(tmp_path / "bundle")
    weights = bundle / "merged/model.safetensors"
    weights.rename(tmp_path / "outside")
    weights.symlink_to(tmp_path / "outside")

    with pytest.raises(ModelError, match=r"merged/model\.safetensors is a link"):
        layout.open_checkpoint(bundle)


def test_a_pipe_that_the_manifest_does_not_name_is_refused(tmp_path: Path) -> None:
    bundle = bundle_files.write_bundle(tmp_path / "bundle")
    os.mkfifo(bundle / "merged/generation_config.json")
    with pytest.raises(ModelError, match="is no regular file"):
        layout.open_checkpoint(bundle)


def test_a_bundle_that_is_itself_reached_by_a_link_is_read(tmp_path: Path) -> None:
    bundle = bundle_files.write_bundle(tmp_path / "bundle")
    (tmp_path / "latest").symlink_to(bundle)
    assert layout.open_checkpoint(tmp_path / "latest").labels.names == bundle_files.LABELS
    assert read_card(tmp_path / "latest") == bundle_files.CARD


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../outside", "", "a//b", "."])
def test_a_name_that_leads_out_of_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").write_text("x")
    (tmp_path / "bundle/a").mkdir(parents=True)
    with pytest.raises(ModelError):
        inside.read_text(tmp_path / "bundle", name)


def test_the_card_of_a_snapshot_of_the_hub_is_read_from_its_blobs(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--owner--model/snapshots/0a1b"
    blobs = tmp_path / "models--owner--model/blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "abc").write_text("The card.")
    (snapshot / layout.CARD).symlink_to("../../blobs/abc")
    assert read_card(snapshot) == "The card.\n"

    # A blob that is a link itself leads elsewhere.
    (tmp_path / "secret").write_text("secret")
    (blobs / "abc").unlink()
    (blobs / "abc").symlink_to(tmp_path / "secret")
    assert "secret" not in read_card(snapshot)


def test_a_plot_that_is_a_link_is_not_shown(tmp_path: Path) -> None:
    bundle = bundle_files.write_bundle(tmp_path / "bundle")
    hash_of_labels = layout.open_checkpoint(bundle).labels.hash
    assert set(find_plots(bundle / "evals", hash_of_labels)) == {"confusion"}

    (bundle / "evals/confusion.png").unlink()
    (bundle / "evals/confusion.png").symlink_to("/etc/passwd")
    assert find_plots(bundle / "evals", hash_of_labels) == {}
