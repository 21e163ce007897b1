"""Execute the walkthrough and save it with its outputs and a picture of the page that it shows.

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

BROWSER_OPTIONS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
"""In a container Chromium has no sandbox of its own and little shared memory."""

PAGE = re.compile(r'<iframe[^>]*src="(http://127\.0\.0\.1:\d+)"', re.DOTALL)
MESSAGE = "I was charged twice for the same coffee"
"""The text that the page answers in its picture."""

MACHINE = re.compile(r"(?<![\w.])/(?:home|root|tmp|work|Users|content|opt|mnt)/[^\s\"']*")
"""Absolute paths, which name the machine that executed the notebook."""

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
"""All that is kept of it: versions and times would change with every execution."""


def main(
    notebook: Annotated[
        Path, typer.Argument(help="The notebook to execute.", show_default="the walkthrough")
    ] = NOTEBOOK,
    output: Annotated[
        Path | None, typer.Option("--output", help="Where to save it; by default in place.")
    ] = None,
) -> None:
    """Execute a notebook in its own folder with this Python and save it.

    Nothing is saved where a cell fails.
    """
    import nbformat

    require_browser()
    book = nbformat.read(notebook, as_version=4)

    started = time.monotonic()
    run_cells(book, notebook)
    seconds = time.monotonic() - started

    tidy(book)
    target = output or notebook
    files.write_text(target, nbformat.writes(book) + "\n")
    megabytes = target.stat().st_size / 1e6
    console.say(
        f"Executed in {seconds:.0f} s, saved as {console.show_path(target)} ({megabytes:.2f} MB)."
    )


def require_browser() -> None:
    """Raise SourceUnavailable at the start, not after minutes, where there is no browser."""
    if not CHROMIUM.exists():
        raise SourceUnavailable(
            f"{CHROMIUM} does not exist", "Install it: apt-get install chromium"
        )


def run_cells(book: Any, path: Path) -> None:
    """Execute the cells of a notebook in its own folder; UserError where one fails."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError

    client = NotebookClient(
        book,
        timeout=CELL_SECONDS,
        startup_timeout=CELL_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        coalesce_streams=True,
        record_timing=False,
        on_cell_executed=picture_page,
    )
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError) as error:
        console.say(str(error))
        raise UserError(
            f"a cell of {console.show_path(path)} failed", "Its message is printed above"
        ) from None


async def picture_page(cell: Any, **_: Any) -> None:
    """Replace a frame with a local page by a picture of the page.

    Once the server has ended the frame would show nothing.
    """
    for output in cell.get("outputs", []):
        html = output.get("data", {}).get("text/html", "")
        frame = PAGE.search(html)
        if frame is None:
            continue

        image = await photograph(frame[1])
        output["data"] = {
            "image/png": base64.b64encode(image).decode(),
            "text/plain": f"The page with an answer to: {MESSAGE}",
        }


async def photograph(url: str) -> bytes:
    """The page at `url` after it has answered a message, as a PNG."""
    from playwright.async_api import async_playwright

    async with async_playwright() as running:
        browser = await running.chromium.launch(executable_path=str(CHROMIUM), args=BROWSER_OPTIONS)
        page = await browser.new_page(viewport={"width": 900, "height": 520})
        await page.goto(url)

        await page.get_by_label("Your message").fill(MESSAGE)
        await page.keyboard.press("Enter")
        await page.locator("#result li").first.wait_for()

        image = await page.screenshot(full_page=True)
        await browser.close()
    return image


def tidy(book: Any) -> None:
    """Remove what belongs to the machine: metadata, and the path of the project before its files.

    Raises OutputError where an output names another path.
    """
    book.metadata = METADATA
    for cell in book.cells:
        cell.metadata = {}
        for output in cell.get("outputs", []):
            _tidy_output(output, cell.id)


def _tidy_output(output: Any, cell_id: str) -> None:
    root = f"{HERE.parent}/"
    # A stream holds its text itself, a result holds one for each kind of data.
    texts = output if "text" in output else output.get("data", {})
    for kind in texts:
        if kind != "text" and not kind.startswith("text/"):
            continue

        texts[kind] = texts[kind].replace(root, "")
        path = MACHINE.search(texts[kind])
        if path is not None:
            raise OutputError(
                f"the output of cell {cell_id} names {path[0]}", "Print a relative path there"
            )


if __name__ == "__main__":
    cli.run(main)
