"""The pages of the documentation: the README and those beside what they explain."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
ROOMS = ("conf", "mlkd", "notebooks", "tests")

PATHS = [REPOSITORY / "README.md"]
PATHS += [path for room in ROOMS for path in sorted((REPOSITORY / room).rglob("README.md"))]
PAGES = {path.relative_to(REPOSITORY).as_posix(): path.read_text("utf-8") for path in PATHS}
"""Text of each page, by its path."""


def sentences(name: str) -> str:
    """A page without line breaks, to look for what it says."""
    return " ".join(PAGES[name].split())


def blocks(language: str, but: str = "") -> list[str]:
    """Code blocks of a language, of all pages but one."""
    found = []
    for name, text in PAGES.items():
        if name != but:
            found += re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)
    return found


def commands(module: str) -> list[list[str]]:
    """Words that follow ``python -m <module>`` in the pages, without comments, each once."""
    lines = [
        line for kind in ("sh", "bash") for block in blocks(kind) for line in block.split("\n")
    ]
    start = ["python", "-m", module]
    words = [shlex.split(line, comments=True) for line in lines]
    found = {tuple(line[3:]) for line in words if line[:3] == start}
    return sorted(map(list, found))


def anchors(name: str) -> set[str]:
    """What links can name in a page: its headings, as GitHub writes them."""
    text = re.sub(r"^```.*?^```$", "", PAGES[name], flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in headings}
