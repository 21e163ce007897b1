"""Uploads: small files that unpack to huge tables, how long files are kept, what ends with the page."""

import contextlib
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from faults import tables as bombs
from servers import environment
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from bankintent.corpus import limits
from bankintent.corpus.tables import open_table
from bankintent.errors import DataError
from bankintent.gradio_app import api_process, client, upload, uploads
from bankintent.gradio_app.client import Client, Trouble
from bankintent.gradio_app.upload_limit import UploadLimit

HOLD = """
import sys, time
from pathlib import Path
from bankintent.gradio_app.uploads import own_folder
with own_folder() as folder:
    (folder / "upload.csv").write_text("private")
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.mark.proof
def test_small_files_take_no_more_memory_than_they_hold() -> None:
    assert not bombs.run(20).gave_way


def test_a_wide_header_over_short_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    path.write_bytes(bombs.wide_row_csv())
    with pytest.raises(DataError, match="more than 16,384 columns"):
        open_table(path)


def test_many_columns_over_rows_that_hold_nothing_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "sparse.csv"
    path.write_bytes(bombs.sparse_csv())
    with pytest.raises(DataError, match="makes a table of"):
        list(open_table(path).chunks(1000))


def test_a_cell_in_the_last_corner_of_a_sheet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "far.xlsx"
    path.write_bytes(bombs.far_cell())
    with pytest.raises(DataError, match="makes a table of"):
        open_table(path)


def test_a_text_that_all_cells_of_a_sheet_share_counts_for_each(tmp_path: Path) -> None:
    path = tmp_path / "shared.xlsx"
    path.write_bytes(bombs.shared_string_bomb())
    with pytest.raises(DataError, match="unpacks to more than"):
        open_table(path)


def test_a_gzipped_file_that_unpacks_to_far_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.csv.gz"
    line = b"a" * 1020 + b",b\n"
    path.write_bytes(bombs.gzip_repeated(line * 1024, 200, b"text,label\n"))
    with pytest.raises(DataError, match="unpacks to more than"):
        sum(1 for _ in open_table(path).records())


@pytest.mark.parametrize(
    ("name", "make", "rows"),
    [
        ("wide.csv", lambda: bombs.csv_bytes(20, 5_000, filled=True), 20),
        ("wide.jsonl", bombs.wide_jsonl, 200),
        ("wide.xlsx", bombs.wide_xlsx, 99),
        ("far.xlsx", bombs.far_row, 11),
        ("wide.parquet", lambda: bombs.wide_parquet(4_000, 20), 20),
    ],
)
def test_a_table_of_thousands_of_columns_is_read(
    tmp_path: Path, name: str, make: Callable[[], bytes], rows: int
) -> None:
    path = tmp_path / name
    path.write_bytes(make())
    chunks = list(open_table(path).chunks(7))
    assert [chunk.num_rows for chunk in chunks[:-1]] == [7] * (len(chunks) - 1)
    assert sum(chunk.num_rows for chunk in chunks) == rows


def test_the_limit_of_cells_grows_with_what_a_file_holds() -> None:
    path = Path("table.csv")
    limits.require_filled(path, 10**9, 10**9)
    limits.require_filled(path, limits.SPARE_CELLS, 1)
    with pytest.raises(DataError):
        limits.require_filled(path, 10**9, 10**7)


def test_only_the_owner_can_read_the_folder_and_it_ends_with_its_block() -> None:
    with uploads.own_folder() as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "a").mkdir()
        (folder / "a/upload.csv").write_text("x")
    assert not folder.exists()


def test_the_folder_of_a_killed_owner_goes_with_the_next_start() -> None:
    killed = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True, env=environment()
    )
    assert killed.stdout is not None
    folder = Path(killed.stdout.readline().strip())
    with killed:
        uploads.remove_leftovers()
        assert (folder / "upload.csv").exists(), "its owner lives"
        killed.kill()

    with uploads.own_folder():
        assert not folder.exists()


def test_folders_of_others_by_the_same_name_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    without_lock = tmp_path / f"{uploads.PREFIX}other"
    without_lock.mkdir()
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / uploads.LOCK).touch()
    link = tmp_path / f"{uploads.PREFIX}link"
    link.symlink_to(tmp_path / "target")

    uploads.remove_leftovers()
    assert without_lock.exists()
    assert (tmp_path / "target" / uploads.LOCK).exists()


def test_files_that_are_old_go_and_new_ones_stay(tmp_path: Path) -> None:
    for name in ("old/upload.csv", "new/upload.csv"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("x")
    (tmp_path / uploads.LOCK).touch()
    for path in (tmp_path / "old/upload.csv", tmp_path / uploads.LOCK):
        os.utime(path, (1, 1))

    uploads.remove_old(tmp_path, time.time() - 60)
    assert not (tmp_path / "old/upload.csv").exists()
    assert (tmp_path / "new/upload.csv").exists()
    assert (tmp_path / uploads.LOCK).exists(), "the lock of a living owner"


def test_a_file_that_is_not_kept_any_more_is_to_be_uploaded_again(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match=r"a\.csv is not kept any more\. Upload it again"):
        upload.read_upload(tmp_path / "a.csv", 10)


def limited(folder: Path, max_bytes: int) -> TestClient:
    """An app that reads uploads, behind the limit."""

    async def take(request: Request) -> Response:
        return PlainTextResponse(str(len(await request.body())))

    app = Starlette(routes=[Route("/gradio_api/upload", take, methods=["POST"])])
    return TestClient(UploadLimit(app, folder, max_bytes))


def test_an_upload_is_bounded_whatever_its_header_says(tmp_path: Path) -> None:
    page = limited(tmp_path, 1 << 16)

    def blocks() -> Iterator[bytes]:
        for _ in range(200):
            yield b"a" * 1000

    assert page.post("/gradio_api/upload", content=b"a" * 900).text == "900"
    assert page.post("/gradio_api/upload", content=blocks()).status_code == 413


def test_all_uploads_together_are_bounded(tmp_path: Path) -> None:
    page = limited(tmp_path, 1 << 20)
    (tmp_path / "stored.csv").write_bytes(b"")
    os.truncate(tmp_path / "stored.csv", uploads.FILES_OF_ALL << 20)

    answer = page.post("/gradio_api/upload", content=b"a")
    assert answer.status_code == 413
    assert "as many files as it may" in answer.text

    (tmp_path / "stored.csv").unlink()
    assert page.post("/gradio_api/upload", content=b"a").status_code == 200


def fake_api(answer: Callable[[httpx.Request], httpx.Response]) -> tuple[Client, list[str]]:
    """A client of a stand-in, and the addresses that it asks for."""
    asked: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        assert request.headers["Authorization"] == "Bearer secret"
        return answer(request)

    made = Client("http://api.example:8000/base", "secret")
    made._http._transport = httpx.MockTransport(handle)
    return made, asked


@pytest.mark.parametrize(
    "address",
    [
        "http://evil.example/a.png",
        "//evil.example/a.png",
        "https://api.example:8000/a.png",
        "/../a.png",
        "/card/a.png?next=http://evil.example",
        "/\\evil.example/a.png",
        "/@evil.example/a.png",
        "file:///etc/a.png",
    ],
)
def test_the_key_goes_to_no_address_that_a_card_names(address: str) -> None:
    api, asked = fake_api(lambda request: httpx.Response(200, content=client.PNG))
    with pytest.raises(Trouble):
        api.plot(address)
    assert asked == []


def test_a_plot_is_read_from_the_api_itself() -> None:
    api, asked = fake_api(lambda request: httpx.Response(200, content=client.PNG + b"x"))
    assert api.plot("/card/confusion-all.png") == client.PNG + b"x"
    assert asked == ["http://api.example:8000/base/card/confusion-all.png"]


def test_a_redirect_is_not_followed() -> None:
    away = httpx.Response(302, headers={"Location": "http://evil.example/"})
    api, asked = fake_api(lambda request: away)
    with pytest.raises(Trouble, match="status 302"):
        api.card()
    assert len(asked) == 1


def test_an_answer_without_end_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MOST_BYTES", 1000)
    api, _ = fake_api(lambda request: httpx.Response(200, content=b"a" * 2000))
    with pytest.raises(Trouble, match="too long"):
        api.card()


@pytest.mark.parametrize("body", [[], {}, {"top_k": []}, {"top_k": [{"label": 1, "score": 2}]}, 5])
def test_an_answer_of_another_shape_is_trouble(body: object) -> None:
    api, _ = fake_api(lambda request: httpx.Response(200, json=body))
    for call in (lambda: api.predict("a", 5), api.card, api.info, lambda: api.predict_many(["a"])):
        with pytest.raises(Trouble):
            call()


CHILD_OF_PAGE = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE)
print(child.pid, flush=True)
time.sleep(60)
"""

IN_NATIVE_CODE = """
import ctypes, os, runpy
from bankintent import process
runpy.run_module = lambda *_, **__: ctypes.PyDLL(None).sleep(60)
process.run_bound(os.getppid(), "stuck", [])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux ends a child with its parent")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM])
def test_the_api_of_a_page_ends_with_it_even_in_native_code(number: signal.Signals) -> None:
    page = subprocess.Popen(
        [sys.executable, "-c", CHILD_OF_PAGE, IN_NATIVE_CODE],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    with page:
        assert page.stdout is not None
        child = int(page.stdout.readline())
        # So that it has asked to end with its parent.
        time.sleep(2)
        page.send_signal(number)

    end = time.monotonic() + 30
    while is_alive(child) and time.monotonic() < end:
        time.sleep(0.05)
    assert not is_alive(child)


def is_alive(process: int) -> bool:
    """Whether a process runs; one that ended and that nobody waits for does not."""
    with contextlib.suppress(OSError):
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z"
    return False


def test_the_page_runs_its_api_so_that_it_ends_with_it() -> None:
    command = api_process._api_command(1, None, None)
    assert command[1:5] == ["-m", "bankintent.process", str(os.getpid()), "bankintent"]
    assert command[5] == "serve"
