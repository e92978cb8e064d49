"""The pages that a user reads, and what stands in them."""

from __future__ import annotations

import re

from tests.subprocesses import ROOT

README = "README.md"
TRANSLATIONS = ("README.ja.md", "README.zh.md")
GUIDES = tuple(
    f"docs/{name}.md"
    for name in (
        "book",
        "training",
        "layers",
        "graph",
        "scikit-learn",
        "searches",
        "command-line",
        "performance",
        "threads-and-cache",
    )
)
PAGES = (README, *TRANSLATIONS, *GUIDES)


_CODE = r"```python\n((?:(?!```).)*)```\n\n"


def text_of(page: str) -> str:
    """All of a page."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """What stands between the fences of a language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def snippets(text: str) -> list[tuple[str, str]]:
    """Each snippet of Python with the output that stands below it."""
    return re.findall(rf"{_CODE}```text\n(.*?)```", text, re.DOTALL)


def scripts_of_ranks(text: str) -> list[tuple[str, str, str, str]]:
    """Each snippet that several ranks of MPI run: the code, their number, the name of its file and the output."""
    return re.findall(rf"{_CODE}```sh\nmpiexec -n (\d) python (\S+)\n```\n\n```text\n(.*?)```", text, re.DOTALL)


def commands(text: str) -> list[str]:
    """The lines that are typed into a shell."""
    return [line for block in blocks(text, "sh") for line in block.splitlines()]


def without_blocks(text: str) -> str:
    """The page without what stands between fences."""
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def sections(text: str) -> list[str]:
    """The page in parts that begin with a heading."""
    return re.split(r"^(?=#)", without_blocks(text), flags=re.MULTILINE)


def links(text: str) -> list[str]:
    """Where a page's links and pictures point."""
    return re.findall(r"\]\(([^)\s]+)\)", without_blocks(text))


def anchors(text: str) -> set[str]:
    """The headings as links name them."""
    headings = re.findall(r"^#+ (.*)$", without_blocks(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
