"""Both pages behind a real nginx, each under a prefix: nothing fails and nothing leaves the prefix."""

import contextlib
import getpass
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from servers import Server, running, serving
from test_deploy import DEPLOY
from test_pages import browser, frontend

from bankintent.process import free_port

pytestmark = pytest.mark.scale

__all__ = ["browser"]

API = "/intents"
PAGE = "/intents-page"


@pytest.fixture(scope="module")
def proxy(served_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of nginx, in front of an API and a Gradio page."""
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if nginx is None:
        pytest.skip("no nginx: apt-get install nginx-light")

    folder = tmp_path_factory.mktemp("proxy")
    config = {"root_path": API}
    with serving(folder / "api", config=config, MODEL_DIR=str(served_bundle)) as api:
        options = ("--backend-url", api.url, "--set", f"root_path={PAGE}")
        (folder / "page").mkdir()
        with frontend(folder / "page", *options) as page, through(nginx, folder, api, page) as url:
            yield url


@contextlib.contextmanager
def through(nginx: str, folder: Path, api: Server, page: str) -> Iterator[str]:
    """Run the nginx of deploy/ in front of two servers; its address."""
    port = free_port()
    text = (DEPLOY / "nginx" / "nginx.conf").read_text()
    text = text.replace("127.0.0.1:8000", f"127.0.0.1:{api.port}")
    text = text.replace("127.0.0.1:7860", urlsplit(page).netloc)
    text = text.replace("127.0.0.1:8080", f"127.0.0.1:{port}")
    for name in ("body", "proxy", "fastcgi", "uwsgi", "scgi"):
        kind = "client_body" if name == "body" else name
        text = text.replace("http {\n", f"http {{\n    {kind}_temp_path {folder}/{name};\n")
    # Its workers must reach the folders of this test, which are this user's alone.
    user = f"user {getpass.getuser()};\n" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(user + text)
    shutil.copy(DEPLOY / "nginx" / "bankintent.conf", folder)
    command = [nginx, "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"]
    with running(command, folder, ready=f"{API}/health/ready", port=port) as server:
        yield server.url


@pytest.fixture
def watched(browser: Any, proxy: str) -> Iterator[tuple[Callable[[str], Any], list[str]]]:
    """Opens a path in the browser, and what of its requests and messages is a failure."""
    contexts: list[Any] = []
    wrong: list[str] = []

    def open_at(path: str) -> Any:
        context = browser.new_context()
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)

        def look(response: Any) -> None:
            inside = response.url.startswith(
                (f"{proxy}{API}/", f"{proxy}{PAGE}/", "data:", "blob:")
            )
            if response.status >= 400 or not inside:
                wrong.append(f"{response.status} {response.url}")

        def look_at_failure(request: Any) -> None:
            # Gradio itself closes a stream of events that has come to its end.
            is_stream = "/gradio_api/queue/data?" in request.url
            if not (is_stream and request.failure == "net::ERR_ABORTED"):
                wrong.append(f"{request.failure} {request.url}")

        page.on("response", look)
        page.on("requestfailed", look_at_failure)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(f"{proxy}{path}")
        return page

    yield open_at, wrong
    for context in contexts:
        context.close()


def links(page: Any) -> list[str]:
    """The addresses of all links, forms and pictures, as the browser resolves them."""
    return page.evaluate(
        "[...document.querySelectorAll('a[href]')].map(e => e.href)"
        ".concat([...document.querySelectorAll('form')].map(e => e.action))"
        ".concat([...document.querySelectorAll('img')].map(e => e.src))"
    )


def require_inside(page: Any, proxy: str, prefix: str) -> None:
    own = [each for each in links(page) if each.startswith("http")]
    assert not [each for each in own if not each.startswith(f"{proxy}{prefix}/")]


def test_the_page_of_the_api_works_under_its_prefix(watched: Any, proxy: str) -> None:
    open_page, wrong = watched
    page = open_page(f"{API}/")
    require_inside(page, proxy, API)
    assert page.evaluate("document.styleSheets.length") > 0
    assert page.evaluate("document.styleSheets[0].cssRules.length") > 0
    page.get_by_label("Your message").fill("my card has not arrived")
    page.get_by_role("button", name="Find the intent").click()
    page.locator("#result li").first.wait_for()
    page.get_by_role("button", name="Why?").click()
    page.locator(".why .words").wait_for()

    for link in links(page):
        if link.startswith(proxy):
            assert httpx.get(link).status_code in (200, 405), link
    assert wrong == []


def test_the_form_works_without_a_script(browser: Any, proxy: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{proxy}{API}/")
    page.get_by_label("Your message").fill("my card has not arrived")
    with page.expect_navigation() as navigated:
        page.get_by_role("button", name="Find the intent").click()
    assert navigated.value.status == 200
    assert page.url.startswith(f"{proxy}{API}/")
    assert page.locator("#result li").count() == 5
    context.close()


def test_card_docs_and_metrics_work_under_the_prefix(watched: Any, proxy: str) -> None:
    open_page, wrong = watched
    page = open_page(f"{API}/card")
    require_inside(page, proxy, API)
    assert httpx.get(f"{proxy}{API}/metrics").text.count("bankintent_ready 1.0") == 1
    assert httpx.get(f"{proxy}{API}", follow_redirects=True).status_code == 200

    page = open_page(f"{API}/docs")
    page.locator("#operations-predict-predict_predict__post .opblock-summary").click()
    page.get_by_role("button", name="Try it out").click()
    page.locator("textarea.body-param__text").fill('{"text": "my card"}')
    page.get_by_role("button", name="Execute").click()
    page.locator(".live-responses-table .response-col_status").get_by_text("200").wait_for()
    assert f"{API}/predict/" in page.locator(".request-url").inner_text()
    assert wrong == []


def test_a_long_upload_and_a_slow_answer_are_bounded_by_the_servers_own_limits(proxy: str) -> None:
    long = {"text": ["x" * 4000] * 64}
    assert httpx.post(f"{proxy}{API}/predict/", json=long, timeout=60).status_code == 200
    response = httpx.post(f"{proxy}{API}/predict/", json={"text": "x" * 1_100_000})
    assert response.status_code == 413


def test_the_gradio_page_works_under_its_prefix(watched: Any, proxy: str, tmp_path: Path) -> None:
    open_page, wrong = watched
    page = open_page(f"{PAGE}/")
    page.get_by_label("Message", exact=True).fill("my lost card")
    page.get_by_role("button", name="Find the intent").click()
    page.get_by_role("button", name="Why?").click()
    page.locator(".why .words").wait_for()
    page.get_by_role("tab", name="The model").click()
    page.get_by_text("A card with").first.wait_for()

    table = tmp_path / "messages.csv"
    table.write_text("text\nmy card\nchange my pin\n")
    page.get_by_role("tab", name="A table").click()
    page.locator("#upload input[type=file]").set_input_files(table)
    page.locator("#predict").click()
    with page.expect_download() as download:
        page.locator("#download a[download]").first.click()
    assert "predicted_intent" in Path(download.value.path()).read_text()
    require_inside(page, proxy, PAGE)
    assert wrong == []
