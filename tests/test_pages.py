"""Both pages in a real browser: what people type, click, upload and see, also when something is wrong."""

import concurrent.futures
import contextlib
import csv
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from servers import ROOT, Server, answers, environment, running, serving
from serving_fixtures import HTML_LABEL, LABELS

from bankintent.gradio_app import upload
from bankintent.gradio_app.client import Client, Trouble

CHROMIUM = Path("/usr/bin/chromium")
ATTACK = "<img src=x onerror=\"document.title='run'\"> <script>document.title='run'</script> ${document.title='run'}"
SHOTS = os.environ.get("BANKINTENT_SCREENSHOTS")

OpenPage = Callable[..., Any]
"""Opens an address in the browser; gives the page."""


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose model waits while the file `hold` is there; one text at a time."""
    limits = {"max_queue": 1, "max_texts": 1, "max_chars": 200, "deadline_s": 20, "shutdown_s": 30}
    folder = tmp_path_factory.mktemp("waiting")
    path = f"{ROOT}:{ROOT / 'tests'}"
    command = ("--factory", "serving_fixtures:waiting_app")
    with serving(folder, *command, config={"limits": limits}, PYTHONPATH=path) as server:
        yield server


@contextlib.contextmanager
def frontend(folder: Path, *options: str) -> Iterator[str]:
    """Run `python -m frontend` until the block ends; its address."""
    command = [sys.executable, "-m", "frontend", "--port", "{port}", *options]
    with running(command, folder, ready="/") as page:
        yield page.url


@pytest.fixture(scope="module")
def gradio_url(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Iterator[str]:
    with frontend(tmp_path_factory.mktemp("frontend"), "--backend-url", server.url) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not CHROMIUM.exists():
        pytest.skip("no browser: apt-get install chromium")
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="no playwright: pip install playwright"
    )
    with playwright.sync_playwright() as running:
        options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        started = running.chromium.launch(executable_path=str(CHROMIUM), args=options)
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Any, request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Open an address; at the end nothing may have been fetched from outside, nor any injected script have run."""
    contexts, outside = [], []

    def note(sent: Any) -> None:
        if not sent.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            outside.append(sent.url)

    def open_at(url: str, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": 1000, "height": 900}, **options)
        context.on("request", note)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.goto(url)
        return page

    yield open_at
    for number, context in enumerate(contexts):
        for page in context.pages:
            if SHOTS:
                page.screenshot(
                    path=Path(SHOTS) / f"{request.node.name}-{number}.png", full_page=True
                )
            assert page.title() != "run"
        context.close()
    assert outside == []


# The page at /


def test_the_page_answers_without_loading_anew(open_page: OpenPage, server: Server) -> None:
    page = open_page(server.url)
    page.evaluate("window.same = true")
    page.get_by_label("Your message").fill("my card has not arrived")
    page.get_by_role("button", name="Find the intent").click()
    page.locator("#result li").first.wait_for()
    assert page.locator("#result li").count() == 5
    assert page.locator("#result h2").inner_text() in LABELS
    assert page.evaluate("window.same") is True


@pytest.mark.parametrize("scripts", [True, False])
def test_the_page_shows_html_in_texts_and_labels_as_text(
    open_page: OpenPage, server: Server, scripts: bool
) -> None:
    page = open_page(server.url, java_script_enabled=scripts)
    page.get_by_label("Your message").fill(ATTACK)
    page.get_by_role("button", name="Find the intent").click()
    page.locator("#result li").first.wait_for()
    assert page.get_by_text(HTML_LABEL).count() >= 1
    assert page.get_by_label("Your message").input_value() == ATTACK
    assert page.locator("#result img").count() == 0


def test_the_page_works_without_scripts(open_page: OpenPage, server: Server) -> None:
    page = open_page(server.url, java_script_enabled=False)
    page.get_by_label("Your message").fill("change my pin")
    page.get_by_role("button", name="Find the intent").click()
    page.locator("#result li").first.wait_for()
    assert page.get_by_label("Your message").input_value() == "change my pin"
    page.get_by_role("link", name="Model card").click()
    assert page.get_by_role("heading", name="tiny").is_visible()


def test_enter_sends_and_shift_enter_does_not(open_page: OpenPage, server: Server) -> None:
    page = open_page(server.url)
    box = page.get_by_label("Your message")
    box.fill("my card")
    box.press("Shift+Enter")
    assert "\n" in box.input_value()
    assert page.locator("#result li").count() == 0
    box.press("Enter")
    page.locator("#result li").first.wait_for()


def test_the_card_page_shows_the_card_and_the_plot(open_page: OpenPage, server: Server) -> None:
    page = open_page(f"{server.url}/card")
    assert page.get_by_role("heading", name="tiny").is_visible()
    picture = page.get_by_alt_text("Confusion matrix of tiny")
    picture.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('figure img').naturalWidth > 0")


def test_the_documentation_page_needs_nothing_from_outside(
    open_page: OpenPage, server: Server
) -> None:
    page = open_page(f"{server.url}/docs")
    page.get_by_text("/health/ready").first.wait_for()


def test_the_page_says_what_is_wrong(open_page: OpenPage, waiting: Server) -> None:
    page = open_page(waiting.url)
    button, box = (
        page.get_by_role("button", name="Find the intent"),
        page.get_by_label("Your message"),
    )
    problem = page.get_by_role("alert")
    box.fill("y" * 300)
    button.click()
    problem.get_by_text("at most 200 are allowed").wait_for()
    with busy(waiting):
        box.fill("yes")
        button.click()
        problem.get_by_text("places in the queue are taken").wait_for()
    page.route("**/*", lambda route: route.abort())
    button.click()
    problem.get_by_text("cannot be reached").wait_for()
    page.unroute_all()
    button.click()
    page.locator("#result h2").wait_for()


@contextlib.contextmanager
def busy(server: Any) -> Iterator[None]:
    """Fill the only place in the queue of the waiting server."""
    held = server.log_file.parent / "hold"
    held.touch()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        call = pool.submit(server.post, "/predict/", {"text": "yes"})
        server.until(lambda s: s.metric("bankintent_held_texts") == 1)
        try:
            yield
        finally:
            held.unlink()
        assert call.result().status_code == 200


# The Gradio page


def status(page: Any, name: str = "status") -> Any:
    return page.locator(f"#{name} textarea")


def wait_for_status(page: Any, words: str, name: str = "status") -> None:
    condition = "([id, words]) => document.querySelector(`#${id} textarea`)?.value.includes(words)"
    page.wait_for_function(condition, arg=[name, words])


def test_the_gradio_page_shows_intents_scores_and_the_time(
    open_page: OpenPage, gradio_url: str
) -> None:
    page = open_page(gradio_url)
    page.locator("#message textarea").fill("my card has not arrived")
    page.locator("#ask").click()
    wait_for_status(page, " ms.")
    assert page.locator("#intents").get_by_text("%").count() == 5
    page.locator("#message textarea").fill("  ")
    page.locator("#ask").click()
    wait_for_status(page, "Type a message first")


def test_the_gradio_page_answers_an_example_that_is_clicked(
    open_page: OpenPage, gradio_url: str
) -> None:
    page = open_page(gradio_url)
    page.get_by_text("How do I change my PIN?").click()
    wait_for_status(page, " ms.")
    assert page.locator("#message textarea").input_value() == "How do I change my PIN?"


def test_the_gradio_page_shows_html_in_texts_and_labels_as_text(
    open_page: OpenPage, gradio_url: str
) -> None:
    page = open_page(gradio_url)
    page.locator("#message textarea").fill(ATTACK)
    page.locator("#ask").click()
    wait_for_status(page, " ms.")
    assert page.locator("#intents").get_by_text(HTML_LABEL).count() >= 1
    assert page.locator("#intents img").count() == 0


def test_a_csv_comes_back_with_its_predictions(
    open_page: OpenPage, gradio_url: str, tmp_path: Path
) -> None:
    source = tmp_path / "messages.csv"
    with source.open("w", newline="", encoding="utf-8") as file:
        rows = [
            ["1", "my card"],
            ["2", ATTACK],
            ["3", " "],
            ["4", "x" * 6000],
            ["5", "a\u2028b\nc"],
        ]
        csv.writer(file).writerows(
            [["id", "Text"], *rows, *([[str(i), f"change pin {i}"] for i in range(6, 106)])]
        )
    page = open_page(gradio_url)
    page.get_by_role("tab", name="A CSV file").click()
    page.locator("#upload input[type=file]").set_input_files(source)
    page.locator("#upload").get_by_text("messages").first.wait_for()
    page.locator("#predict").click()
    wait_for_status(page, "103 of 105 rows predicted", "table-status")
    with page.expect_download() as download:
        page.locator("#download a[download]").first.click()
    with open(download.value.path(), newline="", encoding="utf-8") as file:
        written = list(csv.reader(file))
    assert written[0] == ["id", "Text", "predicted_intent", "score", "note"]
    assert [row[:2] for row in written[1:6]] == rows
    assert [row[4] for row in written[1:6]] == [
        "",
        "cut to the model's length",
        "empty",
        "over 5000 characters",
        "",
    ]
    assert all(row[2] in LABELS and 0 < float(row[3]) <= 1 for row in written[6:])
    assert page.locator("#preview").get_by_text("document.title='run'").count() >= 1
    assert page.locator("#preview img").count() == 0


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"id,words\n1,hello\n", "has none of the columns text"),
        (b"text\n", "no rows"),
        (b"text\n\xff\xfe\n", "not UTF-8"),
        (b'text\n"open', "bad.csv line 2: unexpected end of data"),
        (b"text\nhello, you\n", "bad.csv line 2 has 2 cells, the header 1"),
    ],
)
def test_a_csv_that_cannot_be_read_is_told_why(
    open_page: OpenPage, gradio_url: str, tmp_path: Path, content: bytes, says: str
) -> None:
    source = tmp_path / "bad.csv"
    source.write_bytes(content)
    page = open_page(gradio_url)
    page.get_by_role("tab", name="A CSV file").click()
    page.locator("#upload input[type=file]").set_input_files(source)
    page.locator("#upload").get_by_text("bad").first.wait_for()
    page.locator("#predict").click()
    wait_for_status(page, says, "table-status")


def test_the_gradio_page_shows_the_card_and_the_confusion_matrix(
    open_page: OpenPage, gradio_url: str
) -> None:
    page = open_page(gradio_url)
    page.get_by_role("tab", name="The model").click()
    page.locator("#card h1").get_by_text("tiny").wait_for()
    picture = page.locator("#plot-confusion img")
    picture.wait_for()
    assert picture.evaluate("image => image.naturalWidth") > 100
    assert page.locator("#card script").count() == 0
    assert page.locator("#card").get_by_text("<script>").count() == 1


def test_the_gradio_page_stays_readable_when_the_api_is_busy_refuses_or_is_gone(
    open_page: OpenPage, waiting: Server, tmp_path: Path
) -> None:
    with frontend(tmp_path, "--backend-url", waiting.url) as url:
        page = open_page(url)
        message = page.locator("#message textarea")
        message.fill("y" * 300)
        page.locator("#ask").click()
        wait_for_status(page, "The API refused this: a text of 300 characters")
        with busy(waiting):
            message.fill("yes")
            page.locator("#ask").click()
            wait_for_status(page, "The API is busy")
        page.locator("#ask").click()
        wait_for_status(page, " ms.")
        waiting.process.kill()
        waiting.process.wait()
        page.locator("#ask").click()
        wait_for_status(page, "cannot be reached")


def test_the_gradio_page_starts_an_api_of_its_own_and_ends_it(
    open_page: OpenPage, served_bundle: Path, tmp_path: Path
) -> None:
    with frontend(tmp_path, "--model-dir", str(served_bundle)) as url:
        page = open_page(url)
        page.get_by_text("How do I change my PIN?").click()
        wait_for_status(page, " ms.")
        address = (
            (tmp_path / "server.log")
            .read_text()
            .partition("asks the API at ")[2]
            .partition(". Ctrl")[0]
        )
        assert answers(address)
    assert not answers(address)


# Without a browser


def test_the_gradio_page_opens(gradio_url: str) -> None:
    assert "What is this message about?" in httpx.get(gradio_url).text


@pytest.fixture
def api() -> Callable[..., Client]:
    """A client of an API that gives the responses of a list, in turn."""

    def build(*responses: httpx.Response) -> Client:
        pending = iter(responses)
        client = Client("http://127.0.0.1:1")
        client._http = httpx.Client(
            base_url=client.url, transport=httpx.MockTransport(lambda _: next(pending))
        )
        return client

    return build


def test_a_busy_api_is_asked_again_after_the_time_it_names(
    api: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    busy = httpx.Response(429, headers={"Retry-After": "3"}, json={"error": "full"})
    loading = httpx.Response(503)
    answer = httpx.Response(200, json=[{"label": "a"}])

    assert api(busy, loading, answer).predict_many(["x"]) == [{"label": "a"}]
    assert waits == [3, 1]

    with pytest.raises(Trouble, match="busy"):
        api(*[busy] * 6).predict_many(["x"])


@pytest.mark.parametrize(
    ("response", "says"),
    [
        (httpx.Response(401, json={"error": "no"}), "BANKINTENT_API_KEY"),
        (httpx.Response(422, json={"error": "too long"}), "refused this: too long"),
        (
            httpx.Response(503, json={"error": "the model is still loading"}),
            "not ready .the model is still loading",
        ),
        (httpx.Response(504), "took too long"),
        (httpx.Response(502, text="<html>bad gateway"), "status 502"),
    ],
)
def test_every_refusal_is_put_into_words(
    api: Callable[..., Client], response: Any, says: str
) -> None:
    with pytest.raises(Trouble, match=says):
        api(response).predict("x", 3)


def test_a_text_that_is_no_unicode_is_a_trouble_and_not_a_fault() -> None:
    with pytest.raises(Trouble, match="Unicode"):
        Client("http://127.0.0.1:1").predict("\ud800", 3)


def test_tables_keep_their_delimiter_and_rows_of_uneven_length(tmp_path: Path) -> None:
    source = tmp_path / "a.csv"
    source.write_bytes("\ufeffid;Sentence;\n1;my card;more\n\n2\n".encode())
    table = upload.read_upload(source, max_rows=10)
    assert table == upload.UploadedTable(
        ["id", "Sentence", ""], [["1", "my card", "more"], ["2", "", ""]], 1, ";"
    )
    with pytest.raises(Trouble, match="at most 1 are allowed"):
        upload.read_upload(source, max_rows=1)


def test_rows_that_cannot_be_sent_are_written_with_a_note(
    api: Callable[..., Client], tmp_path: Path
) -> None:
    source = tmp_path / "in.csv"
    source.write_text("id;Text\n1;my card\n2; \n3;far too long\n4;my pin\n")
    table = upload.read_upload(source, max_rows=10)
    info = {"limits": {"max_texts": 3, "max_chars": 10}}
    first = [{"label": "card", "score": 0.75, "truncated": False}]
    second = [{"label": "pin", "score": 0.5, "truncated": True}]
    responses = [httpx.Response(200, json=body) for body in (info, first, second)]
    shares: list[float] = []

    rows = upload.score_upload(api(*responses), table, tmp_path / "out.csv", shares.append)

    assert (tmp_path / "out.csv").read_text().splitlines() == [
        "id;Text;predicted_intent;score;note",
        "1;my card;card;0.7500;",
        "2; ;;;empty",
        "3;far too long;;;over 10 characters",
        "4;my pin;pin;0.5000;cut to the model's length",
    ]
    assert rows[0] == ["1", "my card", "card", "0.7500", ""]
    assert shares == [0.75, 1.0]


def test_a_message_gets_scores_and_a_status(api: Callable[..., Client]) -> None:
    from bankintent.gradio_app import page as gradio_page

    body = {"top_k": [{"label": "card", "score": 0.75}], "truncated": True}
    client = api(httpx.Response(200, json=body), httpx.Response(429))

    scores, status = gradio_page.predict_message(client, "my card", 1)
    assert scores == {"card": 0.75}
    assert status.startswith("Answered in ")
    assert "longer than the model reads" in status

    no_message = gradio_page.predict_message(client, "  ", 1)
    assert no_message == (None, "Type a message first.")
    refusal = gradio_page.predict_message(client, "my card", 1)
    assert refusal == (None, "The API is busy. Try again in a moment.")


def test_a_model_that_cannot_be_served_ends_the_frontend_with_the_reason(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "frontend", "--model-dir", str(tmp_path / "none")]
    result = subprocess.run(
        command, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 2
    assert "none does not exist" in result.stderr
    assert "error: the API of this page did not start" in result.stderr
