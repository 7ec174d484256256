"""Every link in the documentation leads somewhere, and every page can be found."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import TYPE_CHECKING

import pytest

from tests.project.source_tree import MAY_IMPORT, PAGES, ROOT, project_files

if TYPE_CHECKING:
    from pathlib import Path

DOCS = ROOT / "docs"
INDEX = DOCS / "README.md"
BUNDLES = ROOT / "models" / "bundles"

_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_EXTERNAL = re.compile(r"[a-z]+:")
_MENTION = re.compile(r"\b(docs/[\w./-]+\.(?:md|svg|txt))\b")


def prose(page: Path) -> str:
    """Return a page without its code blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> list[str]:
    """Return the targets of a page's links within the project."""
    return [link for link in _LINK.findall(prose(page)) if not _EXTERNAL.match(link)]


@cache
def anchors(page: Path) -> frozenset[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    found: list[str] = []
    for heading in headings:
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        kept = (c for c in text if c in "- _" or unicodedata.category(c)[0] in "LN")
        anchor = "".join(kept).strip().replace(" ", "-")
        found.append(f"{anchor}-{found.count(anchor)}" if anchor in found else anchor)
    return frozenset(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    broken = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_links_are_found() -> None:
    assert sum(len(links(page)) for page in PAGES) > 60


def test_the_index_lists_every_page() -> None:
    listed = {(DOCS / link.partition("#")[0]).resolve() for link in links(INDEX)}
    assert set(PAGES) - listed == {INDEX}


def test_the_readme_leads_to_the_index() -> None:
    assert "docs/README.md" in links(ROOT / "README.md")


def test_no_page_names_another_without_a_link() -> None:
    """Inside code spans and blocks a path cannot be clicked; comments of YAML may name one."""
    found = [
        f"{page.relative_to(ROOT)}: `{name}`"
        for page in PAGES
        for name in re.findall(r"`((?:docs/)?[\w-]+\.md)`", prose(page))
        if (DOCS / name.removeprefix("docs/")).exists()
    ]
    assert found == []


def test_every_page_that_the_project_mentions_exists() -> None:
    """In comments, messages, schemas and scripts as well; the changelog may name an old page."""
    mentioned: dict[str, str] = {}
    for path in project_files():
        if path.name == "CHANGELOG.md" or BUNDLES in path.parents:
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for name in _MENTION.findall(text):
            mentioned.setdefault(name, str(path.relative_to(ROOT)))
    assert len(mentioned) > 10
    assert {name: where for name, where in mentioned.items() if not (ROOT / name).exists()} == {}


def test_every_path_that_the_architecture_names_exists() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    text += (DOCS / "way-of-a-sample.svg").read_text(encoding="utf-8")
    folders = "|".join(MAY_IMPORT)
    named = set(re.findall(rf"\b(?:(?:{folders}|tests)/[\w/]*(?:\.\w+)?)", text))
    assert len(named) > 60
    assert {name for name in named if not (ROOT / name).exists()} == set()
