"""Put the project's public address where Colab needs it: the README's badge and the notebook.

The address is `Repository` under `[project.urls]` of pyproject.toml. Without one, the README has no
badge, and in Colab the notebook asks for the address.

python -m notebooks.colab
"""

import re
import tomllib
from pathlib import Path

from bankintent import cli, console, files
from bankintent.errors import ConfigError

ROOT = Path(__file__).parents[1]
NOTEBOOK = Path("notebooks") / "walkthrough.ipynb"

COLAB = "https://colab.research.google.com"

BADGE = re.compile(rf"\[!\[[^\]]*\]\({re.escape(COLAB)}/assets/\S+\)\]\(\S+\)\n\n")
"""The line of the badge and the blank line below it."""

ADDRESS = re.compile(r'REPO_URL = "[^"]*"')
"""The line of the notebook's first cell that holds the address."""


def main() -> None:
    """Write the address into README.md and the notebook, or take it out."""
    address = read_address(ROOT)
    write_badge(ROOT / "README.md", address)
    write_notebook(ROOT / NOTEBOOK, address)

    if address:
        console.say(f"The badge and the notebook name {address}.")
    else:
        console.say("pyproject.toml names no repository: no badge, no address in the notebook.")


def read_address(root: Path) -> str:
    """The address of the repository on GitHub; empty where none is set."""
    with (root / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    address = str(project.get("urls", {}).get("Repository", ""))

    is_on_github = re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", address)
    if address and not is_on_github:
        raise ConfigError(
            f"pyproject.toml: Repository is {address}, and Colab opens notebooks of GitHub",
            "Expected https://github.com/owner/name",
        )
    return address


def badge(address: str) -> str:
    """The line of the README that opens the notebook in Colab; empty without an address."""
    if not address:
        return ""

    place = address.removeprefix("https://github.com/")
    picture = f"{COLAB}/assets/colab-badge.svg"
    link = f"{COLAB}/github/{place}/blob/main/{NOTEBOOK.as_posix()}"
    return f"[![Open in Colab]({picture})]({link})\n\n"


def write_badge(readme: Path, address: str) -> None:
    """Put the badge below the README's title, in the place of an earlier one."""
    text = BADGE.sub("", readme.read_text(encoding="utf-8"))
    title, rest = text.split("\n\n", 1)
    files.write_text(readme, f"{title}\n\n{badge(address)}{rest}")


def write_notebook(notebook: Path, address: str) -> None:
    """Put the address into the notebook's first cell of code; its outputs stay."""
    import nbformat

    book = nbformat.read(notebook, as_version=4)
    switch = next(cell for cell in book.cells if cell.cell_type == "code")
    switch.source = ADDRESS.sub(f'REPO_URL = "{address}"', switch.source)
    files.write_text(notebook, nbformat.writes(book) + "\n")


if __name__ == "__main__":
    cli.run(main)
