"""Screenshots of the two pages for the README, from the real program: make pictures.

python -m docs.pictures artifacts/models/quickstart
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
from playwright.sync_api import Page, sync_playwright

from bankintent.gradio_app.api_process import own_api

OUTPUT = Path(__file__).parent / "pictures"
SENTENCE = "I still haven't received the card I ordered two weeks ago"
WIDTH, HEIGHT = 1100, 620
START_SECONDS = 120


def ask(page: Page, url: str) -> None:
    """Open one of the two pages and ask for the intent of the sentence."""
    page.goto(url)
    page.get_by_role("textbox").first.fill(SENTENCE)
    page.get_by_role("button", name="Find the intent").click()
    page.get_by_text("card_arrival").first.wait_for()
    page.wait_for_timeout(1000)  # the bars grow


def frontend(api: str) -> tuple["subprocess.Popen[bytes]", str]:
    """`python -m frontend` on a free port, once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{(port := probe.getsockname()[1])}"
    process = subprocess.Popen(
        [sys.executable, "-m", "frontend", "--backend-url", api, "--port", str(port)]
    )
    end = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        try:
            httpx.get(url, timeout=2)
            break
        except httpx.TransportError:
            time.sleep(0.3)
    return process, url


def main(model_dir: Path) -> None:
    """Write page.png and gradio.png, each beside its place and renamed."""
    OUTPUT.mkdir(exist_ok=True)
    with own_api(None, model_dir) as api, sync_playwright() as running:
        # Without a sandbox of its own the browser also runs as a container's only user; it sees loopback alone.
        browser = running.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        ask(page, api)
        shoot(page, "page.png")
        process, url = frontend(api)
        try:
            ask(page, url)
            shoot(page, "gradio.png")
        finally:
            process.terminate()
            process.wait(30)
        browser.close()


def shoot(page: Page, name: str) -> None:
    """Save what the browser shows."""
    with tempfile.TemporaryDirectory(dir=OUTPUT) as folder:
        page.screenshot(path=Path(folder) / name)
        os.replace(Path(folder) / name, OUTPUT / name)
    print(f"Written {name}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "artifacts/models/quickstart"))
