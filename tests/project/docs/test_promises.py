"""What is promised about security is held: each row of SECURITY.md and docs/promises.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.project.places import ROOT

SECURITY = ROOT / "SECURITY.md"
OTHERS = ROOT / "docs/promises.md"
TEST = re.compile(r"`((?:tests|integration)/[\w./]+)(?:::(\w+))?`")


def rows(page: Path) -> list[tuple[str, str, str]]:
    """Return heading, promise and tests of each row of the tables whose last column says what holds them."""
    results, heading, inside = [], "", False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            heading = line[3:]
        inside = line.startswith("|") and (inside or line.rstrip().endswith("| tests |"))
        if inside and not line.startswith("|---") and not line.rstrip().endswith("| tests |"):
            promise, _, tests = line.strip("| ").rpartition(" | ")
            results.append((heading, promise, tests))
    return results


def plain(text: str) -> str:
    """Return text without line breaks and links."""
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", " ".join(text.split()))


ALL = [(page.name, *row) for page in (SECURITY, OTHERS) for row in rows(page)]


@pytest.mark.parametrize(
    ("page", "heading", "promise", "tests"), ALL, ids=[f"{p}-{words[:50]}" for p, _, words, _ in ALL]
)
def test_a_promise_names_tests_that_exist(page: str, heading: str, promise: str, tests: str) -> None:
    named = TEST.findall(tests)

    assert named, promise
    assert TEST.sub("", tests).strip(", ") == ""
    for path, name in named:
        assert (ROOT / path).is_file() or (not name and any((ROOT / path).rglob("test_*.py"))), path
        text = (ROOT / path).read_text(encoding="utf-8") if (ROOT / path).is_file() else "def test_"
        assert re.search(rf"^\s*(?:class|def) {name}\b" if name else r"def test_|^class Test", text, re.MULTILINE), name


@pytest.mark.parametrize(("heading", "words"), [(heading, words) for heading, words, _ in rows(OTHERS)])
def test_words_that_are_held_stand_on_their_page(heading: str, words: str) -> None:
    assert plain(words) in plain((ROOT / heading).read_text(encoding="utf-8"))


LISTS = [
    ("README.md", "## Safety"),
    ("docs/ingress.md", "## Security"),
    ("docs/ingress.md", "## What happens before anything is live"),
]


def items(page: str, heading: str) -> list[str]:
    """Return the items of the list below a heading."""
    section = (ROOT / page).read_text(encoding="utf-8").partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    return [plain(item) for item in re.findall(r"^(?:-|\d+\.) (.*(?:\n +.*)*)", section, re.MULTILINE)]


@pytest.mark.parametrize(("page", "item"), [(page, item) for page, heading in LISTS for item in items(page, heading)])
def test_an_item_about_safety_is_held(page: str, item: str) -> None:
    held = [plain(words) for heading, words, _ in rows(OTHERS) if heading == page]

    assert any(words in item for words in held), item


def test_every_kind_of_attacker_has_promises_and_limits() -> None:
    text = SECURITY.read_text(encoding="utf-8")

    assert len({heading for _, heading, *_ in ALL if heading.startswith("Promises ")}) >= 5
    for word in ("a tenant", "a local user", "a neighbour", "an API server", "the author of a file"):
        assert f"| {word}" in text
    assert len(re.findall(r"^- \*\*", text.partition("## Not promised")[2], re.MULTILINE)) >= 8
    assert not re.search(r"[\w.]+@[\w.]+", text)  # nobody reads a mailbox that does not exist


@pytest.mark.parametrize("page", ["README.md", "docs/ingress.md", "docs/run.md", "deploy/README.md", "CONTRIBUTING.md"])
def test_the_page_about_security_is_linked(page: str) -> None:
    assert re.search(r"\]\((?:\.\./)?SECURITY\.md\)", (ROOT / page).read_text(encoding="utf-8"))
