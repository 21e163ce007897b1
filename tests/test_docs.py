"""The documentation: every page can be found, every link leads somewhere, and nothing comes from another host.

`make docs-site` checks more, with the site's builder: these checks need none, and also read the README.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from docs_pages import DOCS, navigation, settings

PAGES = sorted(page for page in DOCS.rglob("*.md") if DOCS / "tools" not in page.parents)
READ = [REPOSITORY / "README.md", *PAGES]
LINK = re.compile(r"\]\(([^)\s#]*)(?:#([^)\s]+))?\)")
FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.M)
INLINE_CODE = re.compile(r"`[^`\n]*`")
LONGEST_PAGE = 2000
"""Words of a page that people write."""

LONG_PAGES = (
    "reference/commands.md",
    "reference/http-api.md",
    "reference/python.md",
    "explanation/architecture.md",
)


def name(page: Path) -> str:
    """How a test names a page."""
    return str(page.relative_to(REPOSITORY))


def prose(page: Path) -> str:
    """A page without its code."""
    return INLINE_CODE.sub("", FENCED.sub("", page.read_text(encoding="utf-8")))


def anchors(page: Path) -> set[str]:
    """The anchors of a page: those that it names itself, and those of its headings."""
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    return {*re.findall(r'<a id="([^"]+)"></a>', text), *map(github_anchor, headings(page))}


def headings(page: Path) -> list[str]:
    """The headings of a page."""
    return re.findall(r"^#+ (.*)$", FENCED.sub("", page.read_text(encoding="utf-8")), re.M)


def github_anchor(heading: str) -> str:
    """Lower case, without punctuation, a dash for each blank."""
    words = re.sub(r"[^\w\s-]", "", heading.lower()).strip()
    return re.sub(r"\s", "-", words)


def test_every_page_is_in_the_navigation_once() -> None:
    assert sorted(navigation()) == PAGES


@pytest.mark.parametrize("page", READ, ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    lost = []
    for target, anchor in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        found = (page.parent / target).resolve() if target else page
        if not found.exists():
            lost.append(target)
        elif anchor and anchor not in anchors(found):
            lost.append(f"{target}#{anchor}")
        elif page != READ[0] and not found.is_relative_to(DOCS):
            lost.append(f"{target} is not part of the site")
    assert not lost


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_has_one_title_and_headings_whose_anchors_agree(page: Path) -> None:
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    assert len(re.findall(r"^# ", text, re.M)) == 1
    assert text.startswith(("# ", "<!--"))
    for heading in headings(page):
        # Where punctuation stands between blanks, GitHub has two dashes and the site one.
        assert "--" not in github_anchor(heading)


@pytest.mark.parametrize("page", READ, ids=name)
def test_a_page_loads_nothing_from_another_host(page: Path) -> None:
    text = prose(page)
    assert not re.findall(r"!\[[^\]]*\]\(https?:", text)
    assert not re.findall(r"<(?:script|iframe|img|link|video|object|embed)\b", text)
    # A diagram in mermaid would be drawn by a script of another host.
    assert "```mermaid" not in page.read_text(encoding="utf-8")


def test_the_site_loads_nothing_from_another_host() -> None:
    site = settings()
    assert site["theme"]["font"] is False
    assert site["plugins"] == ["search"]
    assert not {"extra_javascript", "repo_url"} & set(site)
    for style in site["extra_css"]:
        text = (DOCS / style).read_text(encoding="utf-8")
        assert "url(" not in text
        assert "@import" not in text


@pytest.mark.proof
def test_the_site_is_built_strictly_and_its_files_load_nothing_from_another_host(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=REPOSITORY, env=quiet, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr

    written = sorted(tmp_path.rglob("*.html"))
    assert len(written) > len(PAGES)  # and a page for addresses that are none
    loaded = re.compile(r'<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)="?(?:https?:)?//[^">]*')
    for page in written:
        assert not loaded.findall(page.read_text(encoding="utf-8"))
    assert not list(tmp_path.rglob("*.py"))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_is_short_enough_to_read(page: Path) -> None:
    place = page.relative_to(DOCS)
    is_looked_up = str(place) in LONG_PAGES or "reference/config/" in str(place)
    if place.parts[0] == "results" or is_looked_up:
        return
    assert len(page.read_text(encoding="utf-8").split()) <= LONGEST_PAGE


def test_programs_and_messages_name_pages_that_are_there() -> None:
    folders = ("bankintent", "configs", "benchmarks", "data/bundled", "tests")
    files = [REPOSITORY / "Makefile", *REPOSITORY.glob("*.py")]
    for folder in folders:
        for ending in ("py", "yaml", "md", "html"):
            files += (REPOSITORY / folder).rglob(f"*.{ending}")

    lost = []
    for file in files:
        for page in re.findall(r"\bdocs/[\w./-]+\.md\b", file.read_text(encoding="utf-8")):
            if not (REPOSITORY / page).exists():
                lost.append(f"{file.relative_to(REPOSITORY)}: {page}")
    assert not lost
