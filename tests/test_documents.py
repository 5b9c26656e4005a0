"""Documents point at what is there: files, headings, pictures."""

import re
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

HIDDEN = {".venv", "outputs", "node_modules"}
DOCUMENTS = sorted(
    str(path.relative_to(REPOSITORY))
    for path in REPOSITORY.rglob("*.md")
    if not HIDDEN & set(path.relative_to(REPOSITORY).parts) and not path.name.startswith(".")
)
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")


def prose(text: str) -> str:
    """A Markdown text without its code."""
    return re.sub(r"^ *```.*?^ *```|`[^`\n]*`", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    """What GitHub calls the headings of a Markdown text: small letters, without marks, spaces as hyphens."""
    headings = re.findall(r"^#+ (.*)$", prose(text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken_links(document: Path) -> list[str]:
    """The links of a document that lead nowhere; those to other hosts are not followed."""
    broken = []
    for first, second in LINK.findall(prose(document.read_text(encoding="utf-8"))):
        target, _, anchor = (first or second).partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = (document.parent / target) if target else document
        if not path.exists() or (anchor and anchor not in anchors(path.read_text(encoding="utf-8"))):
            broken.append(first or second)
    return broken


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    """Every relative link, heading and picture of every Markdown file."""
    assert broken_links(REPOSITORY / document) == []


def test_broken_links_are_noticed(tmp_path: Path) -> None:
    """A missing file, heading or picture; what stands in code is none."""
    (tmp_path / "other.md").write_text("# A heading, with marks!\n", encoding="utf-8")
    text = (
        "[a](other.md#a-heading-with-marks) [b](none.md) [c](other.md#no) <img src='x'> `[d](none)` [e](https://x.y)\n"
    )
    (tmp_path / "one.md").write_text(text + '<img src="none.png">\n```\n[f](none)\n```\n', encoding="utf-8")
    assert broken_links(tmp_path / "one.md") == ["none.md", "other.md#no", "none.png"]
