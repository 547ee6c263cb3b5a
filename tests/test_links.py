"""Links in documents lead to files of the repository, and to headings that are there, as GitHub names them."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "kernels/README.md")), *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^()\s]+)\)")
FILE = re.compile(r"`((?:benchmarks|configs|docs|polaris|scripts|tests)/[\w/.-]+\.(?:md|py|sh|toml))`")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """GitHub's names of a document's headings: small letters, no punctuation, hyphens for spaces, and a number where a name comes again."""
    counted: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#+ +(.+)$", FENCED.sub("", text), re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        found.add(f"{name}-{counted[name]}" if counted[name] else name)
        counted[name] += 1
    return found


def broken(document: Path) -> list[str]:
    found = []
    for target in LINK.findall(FENCED.sub("", document.read_text(encoding="utf-8"))):
        path, _, anchor = target.partition("#")
        if "://" in path or path.startswith("mailto:"):
            continue
        file = (document.parent / path).resolve() if path else document
        if not file.exists() or not file.is_relative_to(ROOT) or (anchor and anchor not in anchors(file.read_text(encoding="utf-8"))):
            found.append(target)
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document):
    assert broken(document) == []


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if path.name != "log.md"], ids=lambda path: path.name)
def test_every_file_that_is_named_is_there(document):
    """The log, which is history, aside."""
    assert [name for name in FILE.findall(document.read_text(encoding="utf-8")) if not (ROOT / name).exists()] == []


def test_a_broken_link_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    links = "[a](#one-two-1) [b](#one-two-2) [c](b.md) [d](a.md#one-two) [e](https://x.y/z.md)"
    (tmp_path / "a.md").write_text(f"# One, two\n\n# One two\n\n{links}\n")
    assert broken(tmp_path / "a.md") == ["#one-two-2", "b.md"]
