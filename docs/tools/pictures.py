"""Screenshots of the two pages for the README, from the real program: make pictures.

python -m docs.tools.pictures artifacts/models/quickstart
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
from playwright.sync_api import Page, ViewportSize, sync_playwright

from bankintent.gradio_app.api_process import own_api
from bankintent.process import free_port

OUTPUT = Path(__file__).parents[1] / "pictures"
CHROMIUM = "/usr/bin/chromium"
OUTSIDE = "What is the weather in Paris?"
REFUSAL = "Not one of this model's"
INSIDE = "I still haven't received the card I ordered two weeks ago"
INTENT = "card_arrival"
SIZE: ViewportSize = {"width": 1000, "height": 620}
START_SECONDS = 120
END_SECONDS = 30
DEFAULT_MODEL = "artifacts/models/quickstart"


def main(model_dir: Path) -> None:
    """Write page.png, with a refusal, and gradio.png into docs/pictures/."""
    OUTPUT.mkdir(exist_ok=True)
    with sync_playwright() as running:
        # Without a sandbox of its own the browser also runs as a container's only user; it opens
        # pages on loopback alone.
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE)

        with own_api(None, model_dir) as url:
            ask(page, url, OUTSIDE)
            wait_until_shown(page, REFUSAL)
            save(page, "page.png", is_whole=True)
        with frontend(model_dir) as url:
            ask(page, url, INSIDE)
            wait_until_shown(page, INTENT)
            save(page, "gradio.png")
        browser.close()


@contextlib.contextmanager
def frontend(model_dir: Path) -> Iterator[str]:
    """Run `python -m frontend` on a free port until the block ends; yields its address."""
    port = free_port()
    options = ["--model-dir", str(model_dir), "--port", str(port)]
    command = [sys.executable, "-m", "frontend", *options]
    process = subprocess.Popen(command)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_answered(process, url)
        yield url
    finally:
        process.terminate()
        process.wait(END_SECONDS)


def wait_until_answered(process: "subprocess.Popen[bytes]", url: str) -> None:
    """Return when the page answers, when its process has ended, or after START_SECONDS."""
    end = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        try:
            httpx.get(url, timeout=2)
            return
        except httpx.TransportError:
            time.sleep(0.3)


def ask(page: Page, url: str, sentence: str) -> None:
    """Open one of the two pages and ask for the intent of the sentence."""
    page.goto(url)
    page.get_by_role("textbox").first.fill(sentence)
    page.get_by_role("button", name="Find the intent").click()


def wait_until_shown(page: Page, words: str) -> None:
    """Return when the page has an answer with these words, and its bars have grown."""
    page.get_by_text(words).first.wait_for()
    page.wait_for_timeout(1000)


def save(page: Page, name: str, is_whole: bool = False) -> None:
    """Save what the browser shows, or the whole page; a picture is complete or not there."""
    with tempfile.TemporaryDirectory(dir=OUTPUT) as folder:
        staging = Path(folder) / name
        page.screenshot(path=staging, full_page=is_whole)
        os.replace(staging, OUTPUT / name)
    print(f"Written {name}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else DEFAULT_MODEL))
