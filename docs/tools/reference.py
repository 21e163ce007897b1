"""Writes what is generated: the JSON Schemas of the YAML files, and docs/reference.

python -m docs.tools.reference
"""

from pathlib import Path

from bankintent import files
from docs.tools import command_page, config_pages, http_page, python_page, schemas

REPOSITORY = Path(__file__).parents[2]

COMMAND = "make reference"
"""What a reader of a message about an old file is told to run."""


def generated() -> dict[Path, str]:
    """Every generated file, below the repository, and its text."""
    pages = config_pages.pages()
    pages[command_page.PAGE] = command_page.page(config_pages.GENERATED)
    pages[http_page.PAGE] = http_page.page(config_pages.GENERATED)
    pages[python_page.PAGE] = python_page.page(config_pages.GENERATED)
    return schemas.files() | pages


def main() -> None:
    """Write every generated file that differs, and name it."""
    for path, text in generated().items():
        target = REPOSITORY / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_file() or target.read_text(encoding="utf-8") != text:
            files.write_text(target, text)
            print(path)


if __name__ == "__main__":
    main()
