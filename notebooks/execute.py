"""Execute the walkthrough from start to end, and save it with its outputs and a picture of the page it shows.

python -m notebooks.execute
python -m notebooks.execute --output artifacts/walkthrough.ipynb
"""

import base64
import re
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from bankintent import cli, console, files
from bankintent.errors import OutputError, SourceUnavailable, UserError

HERE = Path(__file__).parent
NOTEBOOK = HERE / "walkthrough.ipynb"
CHROMIUM = Path("/usr/bin/chromium")
CELL_SECONDS = 1800
"""Longest time for one cell, also where other work shares the machine."""

PAGE = re.compile(r'<iframe[^>]*src="(http://127\.0\.0\.1:\d+)"', re.DOTALL)
MESSAGE = "I was charged twice for the same coffee"
"""What is typed into the page for its picture."""

MACHINE = re.compile(r"(?<![\w.])/(?:home|root|tmp|work|Users|content|opt|mnt)/[^\s\"']*")
"""Paths that say where the notebook was executed."""

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
"""All that is kept of it: versions and times would change with every execution."""


def main(
    notebook: Annotated[Path, typer.Argument(help="The notebook to execute.")] = NOTEBOOK,
    output: Annotated[
        Path | None, typer.Option("--output", help="Where to save it; by default in place.")
    ] = None,
) -> None:
    """Execute a notebook in its own folder with this Python and save it; nothing is saved where a cell fails."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError

    require_browser()
    book = nbformat.read(notebook, as_version=4)
    started = time.monotonic()
    client = NotebookClient(
        book,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(notebook.parent)}},
        coalesce_streams=True,
        record_timing=False,
        on_cell_executed=picture_page,
        startup_timeout=CELL_SECONDS,
    )
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError) as error:
        console.say(str(error))
        raise UserError(
            f"a cell of {console.show_path(notebook)} failed", "What it said stands above"
        ) from None
    seconds = time.monotonic() - started
    tidy(book)
    place = output or notebook
    files.write_text(place, nbformat.writes(book) + "\n")
    console.say(
        f"Executed in {seconds:.0f} s, saved as {console.show_path(place)} ({place.stat().st_size / 1e6:.2f} MB)."
    )


def require_browser() -> None:
    """Say at the start, not after minutes, that the picture of the page cannot be made."""
    if not CHROMIUM.exists():
        raise SourceUnavailable(
            f"{CHROMIUM} does not exist", "Install it: apt-get install chromium"
        )


async def picture_page(cell: Any, **_: Any) -> None:
    """Put a picture in the place of a frame with a local page: once the server has ended the frame shows nothing."""
    for found in cell.get("outputs", []):
        page = PAGE.search(found.get("data", {}).get("text/html", ""))
        if page:
            image = base64.b64encode(await photograph(page[1])).decode()
            found["data"] = {
                "image/png": image,
                "text/plain": f"The page with an answer to: {MESSAGE}",
            }


async def photograph(url: str) -> bytes:
    """The page at `url` after it has answered a message, as a PNG."""
    from playwright.async_api import async_playwright

    options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
    async with async_playwright() as running:
        browser = await running.chromium.launch(executable_path=str(CHROMIUM), args=options)
        page = await browser.new_page(viewport={"width": 900, "height": 520})
        await page.goto(url)
        await page.get_by_label("Your message").fill(MESSAGE)
        await page.keyboard.press("Enter")
        await page.locator("#result li").first.wait_for()
        image = await page.screenshot(full_page=True)
        await browser.close()
    return image


def tidy(book: Any) -> None:
    """Keep nothing of the machine: paths become relative to the project. OutputError where another path is left."""
    root = f"{HERE.parent}/"
    book.metadata = METADATA
    for cell in book.cells:
        cell.metadata = {}
        for found in cell.get("outputs", []):
            texts = found if "text" in found else found.get("data", {})
            for kind in [kind for kind in texts if kind == "text" or kind.startswith("text/")]:
                texts[kind] = texts[kind].replace(root, "")
                if left := MACHINE.search(texts[kind]):
                    raise OutputError(
                        f"the output of cell {cell.id} names {left[0]}",
                        "Print a relative path there",
                    )


if __name__ == "__main__":
    cli.run(main)
