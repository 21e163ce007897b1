"""Both pages in a real browser: what people type, click, upload and see, also when something is wrong."""

import concurrent.futures
import contextlib
import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import write_csv
from servers import ROOT, Server, answers, environment, running, serving
from serving_fixtures import HTML_LABEL, LABELS

from bankintent.config import FrontendConfig, LabelledTableKeys
from bankintent.corpus import dataset
from bankintent.corpus.dataset import SplitData
from bankintent.gradio_app import examples, inspection, summary, upload
from bankintent.gradio_app.client import Client, Trouble
from bankintent.gradio_app.render import problem, render
from bankintent.gradio_app.upload import RowAnswer
from bankintent.serving.page import wording

CHROMIUM = Path("/usr/bin/chromium")
ATTACK = "<img src=x onerror=\"document.title='run'\"> <script>document.title='run'</script> ${document.title='run'}"
SHOTS = os.environ.get("BANKINTENT_SCREENSHOTS")

OpenPage = Callable[..., Any]
"""Opens an address in the browser; gives the page."""


@contextlib.contextmanager
def waiting_server(folder: Path, **variables: str) -> Iterator[Server]:
    """A server whose model waits while the file `hold` is there; one text at a time."""
    limits = {"max_queue": 1, "max_texts": 1, "max_chars": 200, "deadline_s": 20, "shutdown_s": 30}
    path = f"{ROOT}:{ROOT / 'tests'}"
    command = ("--factory", "serving_fixtures:waiting_app")
    config = {"limits": limits}
    with serving(folder, *command, config=config, PYTHONPATH=path, **variables) as server:
        yield server


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with waiting_server(tmp_path_factory.mktemp("waiting")) as server:
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
        context = browser.new_context(**{"viewport": {"width": 1000, "height": 900}, **options})
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


def test_both_pages_explain_an_answer_behind_a_button(
    open_page: OpenPage, server: Server, gradio_url: str
) -> None:
    for url, label in ((server.url, "Your message"), (gradio_url, "Message")):
        page = open_page(url)
        page.evaluate("window.same = true")
        page.get_by_label(label, exact=True).fill(f"my lost card {ATTACK}")
        page.get_by_role("button", name="Find the intent").click()
        page.get_by_role("button", name="Why?").click()
        words = page.locator(".why .words")
        words.wait_for()
        assert words.inner_text() == f"my lost card {ATTACK}"
        assert "no index of its training sentences" in page.locator(".why").inner_text()
        assert page.evaluate("window.same")


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
    picture = page.get_by_alt_text("Confusion matrix: the intents with most errors (tiny)")
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


def wait_for(page: Any, words: str, place: str = "answer") -> None:
    """Wait until an answer of the page holds these words."""
    page.locator(f"#{place}").get_by_text(words).first.wait_for()


def ask(page: Any, text: str) -> None:
    page.locator("#message textarea").fill(text)
    page.locator("#ask").click()


def choose_file(page: Any, path: Path) -> None:
    page.get_by_role("tab", name="A table").click()
    page.locator("#upload input[type=file]").set_input_files(path)


def choose(page: Any, picker: str, name: str) -> None:
    """Take a value from one of the lists above the button."""
    page.locator(f"#{picker} input").click()
    # The list of another picker may still be closing.
    page.locator(f"#{picker}").get_by_role("option", name=name).click()


def read_download(page: Any) -> list[list[str]]:
    with page.expect_download() as download:
        page.locator("#download a[download]").first.click()
    with open(download.value.path(), newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_the_gradio_page_shows_intents_scores_and_the_time(
    open_page: OpenPage, gradio_url: str
) -> None:
    page = open_page(gradio_url)
    ask(page, "my card has not arrived")
    wait_for(page, " ms.")
    assert page.locator("#answer li").count() == 5
    assert page.locator("#answer .score").get_by_text("%").count() == 5
    ask(page, "  ")
    wait_for(page, "Type a message first")


def test_enter_sends_on_the_gradio_page_too(open_page: OpenPage, gradio_url: str) -> None:
    page = open_page(gradio_url)
    box = page.locator("#message textarea")
    box.fill("my card")
    box.press("Shift+Enter")
    assert "\n" in box.input_value()
    assert page.locator("#answer li").count() == 0
    box.press("Enter")
    wait_for(page, " ms.")
    assert box.input_value().count("\n") == 1


def test_the_gradio_page_answers_an_example_that_is_clicked(
    open_page: OpenPage, server: Server, tmp_path: Path
) -> None:
    sentences = json.dumps(["How do I change my PIN?", ATTACK])
    options = ("--backend-url", server.url, "--set", f"examples={sentences}")
    with frontend(tmp_path, *options) as url:
        page = open_page(url)
        page.get_by_role("button", name="How do I change my PIN?").click()
        wait_for(page, " ms.")
        box = page.locator("#message textarea")
        assert box.input_value() == "How do I change my PIN?"
        assert box.get_attribute("placeholder") == "For example: How do I change my PIN?"
        # Gradio shows the start of a long example.
        page.get_by_role("button", name="<img src=x").click()
        page.wait_for_function(
            "text => document.querySelector('textarea').value === text", arg=ATTACK
        )


def test_a_model_whose_data_is_not_at_hand_gets_no_examples(
    open_page: OpenPage, gradio_url: str
) -> None:
    page = open_page(gradio_url)
    hint = "For example, a message about change pin or exchange rate"
    page.get_by_placeholder(hint).wait_for()
    assert page.get_by_text("Examples").count() == 0


def test_the_gradio_page_shows_html_in_texts_and_labels_as_text(
    open_page: OpenPage, gradio_url: str
) -> None:
    page = open_page(gradio_url)
    ask(page, ATTACK)
    wait_for(page, " ms.")
    assert page.locator("#answer").get_by_text(HTML_LABEL).count() >= 1
    assert page.locator("#answer img").count() == 0


def test_a_csv_comes_back_with_its_predictions(
    open_page: OpenPage, gradio_url: str, tmp_path: Path
) -> None:
    source = tmp_path / "messages.csv"
    rows = [
        ["1", "my card"],
        ["2", ATTACK],
        ["3", " "],
        ["4", "x" * 6000],
        ["5", "a\u2028b\nc"],
    ]
    others = [[str(number), f"change pin {number}"] for number in range(6, 106)]
    write_csv(source, rows + others, "id,Text")

    page = open_page(gradio_url)
    choose_file(page, source)
    wait_for(page, "105 rows", "table-answer")
    page.locator("#predict").click()
    wait_for(page, "103 of 105 rows predicted", "table-answer")
    wait_for(page, "1 row: over 5000 characters", "table-answer")
    assert page.locator("#preview").get_by_text("document.title='run'").count() >= 1
    assert page.locator("#preview img").count() == 0

    written = read_download(page)
    assert written[0] == ["id", "Text", *upload.ADDED.names]
    assert [row[:2] for row in written[1:6]] == rows
    assert [row[-1] for row in written[1:6]] == [
        "",
        "cut to the model's length",
        "empty",
        "over 5000 characters",
        "",
    ]
    assert all(row[2] in LABELS and 0 < float(row[3]) <= 1 for row in written[6:])
    assert all(row[4:6] == ["answer", ""] and row[7] in LABELS for row in written[6:])


def test_the_column_of_messages_can_be_chosen(
    open_page: OpenPage, gradio_url: str, tmp_path: Path
) -> None:
    source = tmp_path / "odd.csv"
    rows = [("my card", "card_arrival", "no"), ("change pin", "change_pin", "no")]
    write_csv(source, rows, f"{ATTACK},right,words")

    page = open_page(gradio_url)
    choose_file(page, source)
    wait_for(page, "Choose the column that holds the messages", "table-answer")
    choose(page, "text-column", ATTACK)
    choose(page, "label-column", "right")
    page.locator("#predict").click()
    wait_for(page, "2 of 2 rows predicted", "table-answer")
    wait_for(page, "of 2 rows with a label", "table-answer")
    assert [row[0] for row in read_download(page)[1:]] == ["my card", "change pin"]


def test_a_new_file_takes_the_place_of_the_old_one(
    open_page: OpenPage, gradio_url: str, tmp_path: Path
) -> None:
    first = write_csv(tmp_path / "first.csv", [("my card", "change_pin")], "text,label")
    second = write_csv(tmp_path / "second.csv", [("9", "my pin")], "number,query")

    page = open_page(gradio_url)
    choose_file(page, first)
    page.locator("#predict").click()
    wait_for(page, "1 of 1 row predicted", "table-answer")
    page.get_by_label("Clear").first.click()
    page.locator("#table-answer h2").wait_for(state="detached")
    assert not page.locator("#download").is_visible()

    choose_file(page, second)
    wait_for(page, "The messages are read from query", "table-answer")
    page.locator("#predict").click()
    wait_for(page, "1 of 1 row predicted", "table-answer")
    assert page.locator("#table-answer").get_by_text("Accuracy").count() == 0


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"text\n", "no rows"),
        (b'text\n"open', "bad.csv line 2: unexpected end of data"),
        (b"text\nhello, you\n", "bad.csv line 2 has 2 cells, the header 1"),
    ],
)
def test_a_table_that_cannot_be_read_is_told_why(
    open_page: OpenPage, gradio_url: str, tmp_path: Path, content: bytes, says: str
) -> None:
    source = tmp_path / "bad.csv"
    source.write_bytes(content)
    page = open_page(gradio_url)
    choose_file(page, source)
    wait_for(page, says, "table-answer")


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
        ask(page, "y" * 300)
        wait_for(page, "The API refused this: a text of 300 characters")
        with busy(waiting):
            ask(page, "yes")
            wait_for(page, "The API is busy")
        page.locator("#ask").click()
        wait_for(page, " ms.")
        waiting.process.kill()
        waiting.process.wait()
        page.locator("#ask").click()
        wait_for(page, "cannot be reached")


def test_the_gradio_page_starts_an_api_of_its_own_and_ends_it(
    open_page: OpenPage, served_bundle: Path, tmp_path: Path
) -> None:
    with frontend(tmp_path, "--model-dir", str(served_bundle)) as url:
        page = open_page(url)
        ask(page, "change my pin")
        wait_for(page, " ms.")
        address = (
            (tmp_path / "server.log")
            .read_text()
            .partition("asks the API at ")[2]
            .partition(". Ctrl")[0]
        )
        assert answers(address)
    assert not answers(address)


# Both pages, on a phone and for screen readers

PHONE = {"width": 390, "height": 844}

UNEVEN = """
list => [...list.querySelectorAll("li")].filter(item => {
  const centres = [...item.children].map(part => {
    const box = part.getBoundingClientRect();
    return box.top + box.height / 2;
  });
  return Math.max(...centres) - Math.min(...centres) > 4;
}).length
"""
"""How many intents have a name, a bar and a score that are not side by side."""

BROKEN_NAMES = """
list => {
  const walker = document.createTreeWalker(list, NodeFilter.SHOW_TEXT);
  const broken = [];
  while (walker.nextNode()) {
    const range = document.createRange();
    range.selectNodeContents(walker.currentNode);
    const isWord = !/\\s/.test(walker.currentNode.textContent.trim());
    if (isWord && range.getClientRects().length > 1) broken.push(walker.currentNode.textContent);
  }
  return broken;
}
"""
"""The words that go on in a second line: the parts of a name are texts of their own."""

NAMELESS = """
() => [...document.querySelectorAll("input, textarea, select, button, meter")]
  .filter(element => element.checkVisibility())
  .filter(element => !(element.ariaLabel || element.title || element.innerText
    || [...(element.labels ?? [])].some(label => label.innerText)))
  .map(element => element.outerHTML)
"""
"""The visible controls to which a screen reader can give no name."""


def open_and_ask(open_page: OpenPage, url: str, box: str, answer: str) -> Any:
    """A page on a phone with the answer to a message; the list of the intents."""
    page = open_page(url, viewport=PHONE)
    page.locator(f"{box}").fill("my card has not arrived")
    page.locator(f"{box}").press("Enter")
    intents = page.locator(f"{answer} .intents")
    intents.wait_for()
    return intents


PAGES = [("server", "#text", "#result"), ("gradio_url", "#message textarea", "#answer")]


@pytest.mark.parametrize(("fixture", "box", "answer"), PAGES)
def test_an_answer_fits_on_a_phone(
    open_page: OpenPage, request: pytest.FixtureRequest, fixture: str, box: str, answer: str
) -> None:
    value = request.getfixturevalue(fixture)
    url = value if isinstance(value, str) else value.url
    intents = open_and_ask(open_page, url, box, answer)
    place = intents.bounding_box()
    assert place["y"] + place["height"] <= PHONE["height"]
    assert intents.evaluate(UNEVEN) == 0
    assert intents.evaluate(BROKEN_NAMES) == []
    assert intents.evaluate("() => document.documentElement.scrollWidth") <= PHONE["width"]


@pytest.mark.parametrize(("fixture", "box", "answer"), PAGES)
def test_a_screen_reader_is_told_everything(
    open_page: OpenPage, request: pytest.FixtureRequest, fixture: str, box: str, answer: str
) -> None:
    value = request.getfixturevalue(fixture)
    url = value if isinstance(value, str) else value.url
    page = open_page(url)
    # The place that is watched has to be there before the answer is.
    live = page.locator(f"{answer}[aria-live=polite], {answer} [aria-live=polite]")
    live.wait_for(state="attached")
    live.evaluate("element => { window.live = element }")
    page.locator(box).fill("my card")
    page.locator(box).press("Enter")
    page.locator(f"{answer} .intents").wait_for()
    assert page.evaluate("window.live.isConnected && window.live.innerText.includes('%')")
    assert page.evaluate(NAMELESS) == []


# Without a browser


def test_the_gradio_page_opens(gradio_url: str) -> None:
    assert "What is this message about?" in httpx.get(gradio_url).text


def test_the_page_hints_at_the_intents_of_its_model_where_they_need_no_key(
    server: Server, tmp_path: Path
) -> None:
    assert "For example, a message about change pin or exchange rate" in server.get("/").text

    with waiting_server(tmp_path, BANKINTENT_API_KEY="secret") as guarded:
        page = guarded.get("/").text
        assert 'placeholder="Type or paste a message"' in page
        assert "yes" not in page


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


def keys(**values: str) -> LabelledTableKeys:
    return LabelledTableKeys(**values)


def test_a_table_is_read_up_to_the_most_rows_that_are_allowed(tmp_path: Path) -> None:
    source = tmp_path / "a.csv"
    source.write_bytes("\ufeffid;Sentence;\n1;my card;more\n\n2\n".encode())
    table = upload.read_upload(source, max_rows=2)
    assert table.texts == ["my card", ""]
    assert table.labels is None
    with pytest.raises(Trouble, match=r"^a.csv holds more than 1 rows"):
        upload.read_upload(source, max_rows=1)


def test_a_table_without_a_known_column_needs_a_choice(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "in.csv", [("no", "my card", "card")], "words,what,tag")
    found = inspection.inspect(source, max_rows=9)
    assert found.columns == ["words", "what", "tag"]
    assert found.text_column is None
    assert found.label_column is None
    assert found.first_rows == [["no", "my card", "card"]]
    with pytest.raises(Trouble, match="Choose the column of messages"):
        upload.read_upload(source, max_rows=9)

    table = upload.read_upload(source, 9, keys(text_column="what", label_column="tag"))
    assert table.texts == ["my card"]
    assert table.labels == ["card"]


def test_the_likely_columns_are_suggested(tmp_path: Path) -> None:
    pairs = [("1", "my card", "card", "x")]
    source = write_csv(tmp_path / "in.csv", pairs, "id,Message,intent,")
    found = inspection.inspect(source, max_rows=9)
    assert (found.text_column, found.label_column) == ("Message", "intent")
    assert found.columns == ["id", "Message", "intent"]
    assert found.rows == 1


def test_a_column_that_stands_twice_is_refused_or_not_offered(tmp_path: Path) -> None:
    messages = write_csv(tmp_path / "in.csv", [("a", "b", "c")], "text,text,label")
    for read in (inspection.inspect, upload.read_upload):
        with pytest.raises(Trouble, match=r'^in\.csv has 2 columns "text"'):
            read(messages, 9)

    labels = write_csv(tmp_path / "in.csv", [("a", "b", "c", "d")], "label,text,label,other")
    found = inspection.inspect(labels, max_rows=9)
    assert found.columns == ["text", "other"]
    assert found.repeated == ["label"]
    assert found.label_column is None
    assert found.first_rows == [["b", "d"]]


def write_workbook(path: Path, sheets: dict[str, list[list[Any]]]) -> Path:
    import openpyxl

    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, lines in sheets.items():
        sheet = book.create_sheet(name)
        for line in lines:
            sheet.append(line)
    book.save(path)
    return path


TABLE = [["id", "text", "label"], [1, "my card", "card"], [2, "my pin", "pin"]]
RECORDS = [{"text": "my card", "label": ["card"]}, {"text": "my pin", "label": ["pin"]}]


def write_kind(folder: Path, name: str) -> Path:
    """The same two rows as a file of the kind that its name says."""
    import gzip

    path = folder / name
    lines = "".join(json.dumps(record) + "\n" for record in RECORDS)
    match name:
        case "in.xlsx":
            write_workbook(path, {"tickets": TABLE})
        case "in.json":
            path.write_text(json.dumps({"tickets": RECORDS}))
        case "in.jsonl":
            path.write_text(lines)
        case "in.jsonl.gz":
            path.write_bytes(gzip.compress(lines.encode()))
        case "in.tsv":
            path.write_text("text\tlabel\nmy card\tcard\nmy pin\tpin\n")
        case "in.utf16.csv":
            path.write_text("text;label\nmy card;card\nmy pin;pin\n", "utf-16")
    return path


@pytest.mark.parametrize(
    ("name", "written", "starts"),
    [
        ("in.tsv", "in-predictions.tsv", "text\tlabel\tpredicted_intent"),
        ("in.utf16.csv", "in.utf16-predictions.csv", "\ufefftext;label;predicted_intent"),
        ("in.xlsx", "in-predictions.csv", "\ufeffid,text,label,predicted_intent"),
        ("in.json", "in-predictions.csv", "text,label,predicted_intent"),
        ("in.jsonl", "in-predictions.jsonl", '{"text": "my card", '),
        ("in.jsonl.gz", "in-predictions.jsonl", '{"text": "my card", '),
    ],
)
def test_every_kind_of_table_is_read_and_comes_back(
    tmp_path: Path, name: str, written: str, starts: str
) -> None:
    source = write_kind(tmp_path, name)
    found = inspection.inspect(source, max_rows=9)
    assert (found.rows, found.text_column, found.label_column) == (2, "text", "label")

    table = upload.read_upload(source, 9, keys(label_column="label"))
    assert table.texts == ["my card", "my pin"]
    assert table.labels == ["card", "pin"]

    folder = tmp_path / "out"
    folder.mkdir()
    path = upload.write_scored(table, [RowAnswer("card", 0.75, "")] * 2, folder)
    assert path.name == written
    assert path.read_text(encoding="utf-8").startswith(starts)


def choices(picker: Any) -> list[str]:
    """The values that a picker offers; none where it is hidden."""
    if isinstance(picker, dict):
        assert picker["visible"] is False
        return []
    assert picker.visible
    return [value for _, value in picker.choices]


def test_the_encoding_is_asked_for_where_it_has_to_be(tmp_path: Path) -> None:
    from bankintent.gradio_app.table_tab import look_at

    source = tmp_path / "in.csv"
    source.write_bytes("text;label\nWo bleibt das Paket für mich?;Rückgabe\n".encode("cp1252"))
    encoding, _, text_column, _, answer, *_ = look_at(str(source), keys(), 9)
    assert choices(encoding)[0] == "cp1252"
    assert encoding.value is None
    assert choices(text_column) == []
    assert "in.csv is not UTF-8 text (line 2); it looks like cp1252" in answer
    assert "--set" not in answer
    assert str(tmp_path) not in answer

    wrong = look_at(str(source), keys(encoding="cp932"), 9)
    assert choices(wrong[0])[0] == "cp1252"

    encoding, _, text_column, label_column, answer, _, first = look_at(
        str(source), keys(encoding="cp1252"), 9
    )
    assert encoding.value == "cp1252"
    assert (text_column.value, label_column.value) == ("text", "label")
    assert "für mich" in first

    plain = write_csv(tmp_path / "plain.csv", [("hello", "a")])
    assert choices(look_at(str(plain), keys(), 9)[0]) == []

    mixed = tmp_path / "mixed.csv"
    mixed.write_bytes("text\nfür\nüber\n".encode() + b"f\xfcr\n")
    encoding, _, _, _, answer, *_ = look_at(str(mixed), keys(), 9)
    assert choices(encoding) == []
    assert "mixed.csv is not UTF-8 text (line 4). The other lines are UTF-8" in answer


def test_every_encoding_that_a_file_may_look_like_can_be_chosen() -> None:
    import codecs

    from bankintent.corpus.encoding import CANDIDATES
    from bankintent.gradio_app.table_tab import ENCODINGS

    names = [codecs.lookup(name).name for name in ENCODINGS]
    assert names == list(ENCODINGS)
    assert {codecs.lookup(name).name for name in CANDIDATES} <= set(names)


def test_the_sheet_of_a_workbook_can_be_chosen_where_there_are_several(tmp_path: Path) -> None:
    from bankintent.gradio_app.table_tab import look_at

    source = write_workbook(tmp_path / "in.xlsx", {"cover": [], "tickets": TABLE})
    _, sheet, text_column, _, answer, *_ = look_at(str(source), keys(), 9)
    assert choices(sheet) == ["cover", "tickets"]
    assert choices(text_column) == []
    assert "is empty." in answer
    assert "--set" not in answer

    _, sheet, text_column, *_ = look_at(str(source), keys(sheet="tickets"), 9)
    assert sheet.value == "tickets"
    assert text_column.value == "text"

    one = write_workbook(tmp_path / "one.xlsx", {"tickets": TABLE})
    assert choices(look_at(str(one), keys(), 9)[1]) == []


def test_what_is_no_workbook_is_a_trouble(tmp_path: Path) -> None:
    source = tmp_path / "in.xlsx"
    source.write_bytes(b"no workbook")
    with pytest.raises(Trouble, match=r"^in\.xlsx is not a readable \.xlsx workbook"):
        inspection.find_sheets(source)


@pytest.fixture
def table(tmp_path: Path) -> upload.UploadedTable:
    """A table with a row of every kind."""
    source = tmp_path / "in.csv"
    source.write_text(
        "id;Text;intent\n1;my card;card\n2; ;pin\n3;far too long;pin\n4;my pin;other\n5;pin;\n"
    )
    return upload.read_upload(source, 10, keys(label_column="intent"))


@pytest.fixture
def table_answers(api: Callable[..., Client], table: upload.UploadedTable) -> list[RowAnswer]:
    info = {"limits": {"max_texts": 3, "max_chars": 10}}
    first = [{"label": "card", "score": 0.75, "truncated": False}]
    second = [
        {"label": "pin", "score": 0.5, "truncated": True},
        {"label": "pin", "score": 0.123456, "truncated": False},
    ]
    second[1]["top_k"] = [{"label": "pin", "score": 0.123456}, {"label": "card", "score": 0.1}]
    responses = [httpx.Response(200, json=body) for body in (info, first, second)]
    shares: list[float] = []

    found = upload.score_upload(api(*responses), table, shares.append)
    assert shares == [0.6, 1.0]
    return found


def test_rows_that_cannot_be_sent_are_written_with_a_note(
    table: upload.UploadedTable, table_answers: list[RowAnswer], tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    path = upload.write_scored(table, table_answers, folder)
    assert path.name == "in-predictions.csv"
    assert path.read_text().splitlines() == [
        "id;Text;intent;predicted_intent;score;decision;reason;margin;second;note",
        "1;my card;card;card;0.75;answer;;;;",
        "2; ;pin;;;;;;;empty",
        "3;far too long;pin;;;;;;;over 10 characters",
        "4;my pin;other;pin;0.5;answer;;;;cut to the model's length",
        "5;pin;;pin;0.1235;answer;;0.0235;card;",
    ]


def test_a_scored_table_can_be_scored_again(
    table: upload.UploadedTable, table_answers: list[RowAnswer]
) -> None:
    once = upload.add_answers(table.rows, table_answers)
    twice = upload.add_answers(once, table_answers)
    again = [f"{name}_2" for name in upload.ADDED.names]
    assert twice.column_names[-len(again) :] == again


def test_a_parquet_file_comes_back_as_one_with_its_types(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = tmp_path / "in.parquet"
    rows = pa.table({"tags": [["a", "b"]], "sentence": ["my card"], "label": [3.0]})
    pq.write_table(rows, source)
    table = upload.read_upload(source, 10, keys(label_column="label"))
    assert table.labels == ["3"]

    folder = tmp_path / "out"
    folder.mkdir()
    path = upload.write_scored(table, [RowAnswer("card", 0.75, "")], folder)
    assert path.name == "in-predictions.parquet"
    assert pq.read_table(path).to_pylist() == [
        {
            "tags": ["a", "b"],
            "sentence": "my card",
            "label": 3.0,
            "predicted_intent": "card",
            "score": 0.75,
            "decision": None,
            "reason": None,
            "margin": None,
            "second": None,
            "note": "",
        }
    ]


def test_a_summary_counts_intents_remarks_and_hits(
    table: upload.UploadedTable, table_answers: list[RowAnswer]
) -> None:
    found = summary.sum_up(table_answers, table.labels, ["card", "pin"])
    assert (found.rows, found.predicted) == (5, 3)
    assert [(count.name, count.rows) for count in found.intents] == [("pin", 2), ("card", 1)]
    assert found.intents[0].share == pytest.approx(2 / 3)
    remarks = ["cut to the model's length", "empty", "over 10 characters"]
    assert [(count.name, count.rows) for count in found.notes] == [(note, 1) for note in remarks]

    assert found.labelled is not None
    assert found.labelled.accuracy == summary.measure(1, 1)
    assert found.labelled.without_label == 1
    assert [(count.name, count.rows) for count in found.labelled.unknown] == [("other", 1)]


def test_a_summary_names_the_largest_intents_and_counts_the_others() -> None:
    answers = [RowAnswer(f"i{number:02}", 1.0, "") for number in range(12)] * 2
    answers.append(RowAnswer("i11", 1.0, ""))
    found = summary.sum_up(answers, None, [])
    assert found.intents[0] == summary.Count("i11", 3, 3 / 25)
    assert [count.name for count in found.intents[1:]] == [f"i{number:02}" for number in range(9)]
    assert (found.other_intents, found.other_rows) == (2, 4)
    assert found.labelled is None


def test_the_accuracy_has_the_interval_of_wilson() -> None:
    # By hand, with z = 1.959964: centre (k + z²/2) / (n + z²), half z sqrt(p q n + z²/4) / (n + z²).
    found = summary.measure(8, 10)
    assert found.share == 0.8
    assert (found.low, found.high) == pytest.approx((0.490162, 0.943318), abs=1e-6)


def test_the_page_says_what_a_summary_holds(
    table: upload.UploadedTable, table_answers: list[RowAnswer]
) -> None:
    found = summary.sum_up(table_answers, table.labels, ["card", "pin"])
    html = render("summary.html", summary=found, top_labels=summary.TOP_LABELS)
    assert "3 of 5 rows predicted" in html
    assert "Accuracy 100 %" in html
    assert "1 of 1 row with a label" in " ".join(html.split())
    assert "other (1 row)" in html
    assert "1 row: empty" in html

    nothing = summary.sum_up(table_answers, ["x"] * 5, ["card", "pin"])
    html = render("summary.html", summary=nothing, top_labels=summary.TOP_LABELS)
    assert "no predicted row has a label that this model knows" in html


def test_what_a_file_says_is_shown_as_text() -> None:
    row = [ATTACK, "a"]
    html = render("rows.html", title=ATTACK, columns=[ATTACK, "b"], rows=[row])
    count = summary.Count(ATTACK, 1, 1.0)
    labelled = summary.Labelled(None, 0, [count])
    found = summary.Summary(1, 1, [count], 0, 0, [count], labelled)
    html += render("summary.html", summary=found, top_labels=1)
    html += problem(ATTACK)
    assert "<img" not in html
    assert "<script" not in html


def test_a_message_gets_its_intents_or_a_reason(api: Callable[..., Client]) -> None:
    from bankintent.gradio_app import message_tab

    body = {
        "top_k": [{"label": "card_lost", "score": 0.998}, {"label": "<b>", "score": 0.002}],
        "truncated": True,
    }
    client = api(httpx.Response(200, json=body), httpx.Response(429))

    html = message_tab.predict_message(client, "my card", 2)
    assert "<h2>card_<wbr>lost</h2>" in html
    assert "99.8 %" in html
    assert "0.2 %" in html
    assert "&lt;b&gt;" in html
    assert "longer than the model reads" in html

    assert "Type a message first." in message_tab.predict_message(client, "  ", 2)
    assert "The API is busy." in message_tab.predict_message(client, "my card", 2)


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (0.0, "<0.1 %"),
        (0.00099, "<0.1 %"),
        (0.001, "0.1 %"),
        (0.002, "0.2 %"),
        (0.4996, "50.0 %"),
        (0.999, "99.9 %"),
        (0.99901, ">99.9 %"),
        (1.0, "100 %"),
    ],
)
def test_a_small_share_is_not_shown_as_nothing(share: float, shown: str) -> None:
    assert wording.percent(share) == shown


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("card_arrival", "card_<wbr>arrival"),
        ("AddToPlaylist", "Add<wbr>To<wbr>Playlist"),
        ("alarm/set-off", "alarm/<wbr>set-<wbr>off"),
        ("_private", "_<wbr>private"),
        ("GPS", "GPS"),
        ("level_2", "level_<wbr>2"),
        ("0.0701", "0.0701"),
        ("two words", "two words"),
        ("<b>&", "&lt;b&gt;&amp;"),
    ],
)
def test_a_name_wraps_between_its_words(name: str, shown: str) -> None:
    assert wording.breakable(name) == shown


def test_the_hint_comes_from_the_intents_of_the_model() -> None:
    hint = "For example, a message about play music or weather query"
    assert wording.placeholder(["alarm", "play_music", "weather_query"]) == hint
    neutral = "Type or paste a message"
    assert wording.placeholder(["0", "1", "2"]) == neutral
    assert wording.placeholder(["<b>", "card", "x" * 80]) == neutral
    assert wording.placeholder(()) == neutral


def find(**settings: Any) -> list[str]:
    return examples.find_examples(FrontendConfig(**settings))


def test_examples_are_test_sentences_of_different_intents_of_the_models_own_data(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = dataset.load(Path("data")).read("test")
    label_of = dict(zip(rows.texts, rows.labels, strict=True))

    found = find(model_dir=bundle)
    assert len(found) == min(examples.NUM_EXAMPLES, len(set(rows.labels)))
    assert len({label_of[text] for text in found}) == len(found)

    assert find(model_dir=bundle / "merged") == found
    monkeypatch.setenv("MODEL_DIR", str(bundle))
    assert find() == found


def test_there_are_no_examples_where_they_might_not_be_the_models_or_be_seen_by_others(
    bundle: Path,
) -> None:
    assert find(model_dir=bundle, backend_url="http://127.0.0.1:1") == []
    assert find(model_dir=bundle, host="0.0.0.0") == []
    assert find(model_dir=bundle, examples=[]) == []
    assert find(model_dir=bundle, host="0.0.0.0", examples=["hello"]) == ["hello"]
    assert find(model_dir=Path("nowhere")) == []

    manifest = Path("data/manifest.json")
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "data_hash": "of other rows"}))
    assert find(model_dir=bundle) == []


def test_examples_fit_on_a_button_and_are_spread_over_the_intents() -> None:
    texts = ["x" * 200, *(f"about {number}" for number in range(9)), "again 0"]
    labels = [0, *range(9), 0]
    rows = SplitData([str(number) for number in range(11)], texts, labels)
    assert examples.choose_examples(rows) == ["about 1", "about 3", "about 5", "about 7"]
    assert examples.choose_examples(SplitData.empty()) == []


def test_a_model_that_cannot_be_served_ends_the_frontend_with_the_reason(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "frontend", "--model-dir", str(tmp_path / "none")]
    result = subprocess.run(
        command, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 2
    assert "none does not exist" in result.stderr
    assert "error: the API of this page did not start" in result.stderr
