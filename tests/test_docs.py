"""The pages say what the code does: generated parts are current, codes and links are complete."""

import json
import re
from pathlib import Path

import pytest

from docs import generate
from engine.core import transition
from engine.core.events import EVENT_TYPES
from engine.core.rejections import RETRYABLE, RejectCode
from engine.core.types import State
from engine.payments import PaymentDBCode

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
FENCE = re.compile(r"^(```|~~~)(\w*)\n(.*?)^\1", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^(#+) +(.+?) *$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


every_page = pytest.mark.parametrize("page", PAGES, ids=name)


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def headings(page: Path) -> list[str]:
    return [title.strip("`") for _, title in HEADING.findall(prose(page))]


def anchors(page: Path) -> set[str]:
    """Return the anchors that a Markdown host makes of the headings."""
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings(page)}


def chapter(page: Path, title: str) -> str:
    """Return what stands below a heading of the second level, up to the next one."""
    _, found, rest = prose(page).partition(f"\n## {title}\n")
    assert found, f"{name(page)} has no chapter {title}"
    return rest.partition("\n## ")[0]


@pytest.mark.parametrize("page", generate.PAGES)
def test_what_is_drawn_from_the_code_is_current(page):
    text = (DOCS / page).read_text()
    assert generate.renewed(text) == text, "run `python -m docs.generate`"


def test_every_generated_part_has_its_place():
    text = "".join((DOCS / page).read_text() for page in generate.PAGES)
    for part in generate.PARTS:
        assert text.count(f"<!-- generated: {part} -->") == 1
        assert text.count(f"<!-- end of {part} -->") == 1


def test_a_changed_table_changes_the_pages(monkeypatch):
    page = DOCS / "reference" / "states.md"
    rows = dict(transition.TRANSITIONS)
    rows.popitem()
    monkeypatch.setattr(generate, "TRANSITIONS", rows)
    assert generate.renewed(page.read_text()) != page.read_text()


@pytest.mark.parametrize("code", RejectCode)
def test_a_result_code_has_its_chapter(code):
    text = chapter(DOCS / "reference" / "result-codes.md", code.value)
    assert "\n- Decided by: " in text
    assert "\n- Next: " in text
    retryable = re.search(r"^- Retryable: (yes|no)\. HTTP \d{3}\.$", text, re.MULTILINE)
    assert retryable
    assert (retryable[1] == "yes") == (code in RETRYABLE)


def test_no_chapter_is_left_of_a_code_that_is_gone():
    page = DOCS / "reference" / "result-codes.md"
    assert headings(page)[1:] == [code.value for code in RejectCode]


def test_a_payment_code_has_its_chapter_and_none_is_left_of_those_gone():
    page = DOCS / "reference" / "payment-codes.md"
    assert headings(page)[1:] == [*(code.value for code in PaymentDBCode), "Faults of a store"]
    for code in PaymentDBCode:
        text = chapter(page, code.value)
        assert "\n- Raised by: " in text
        assert "\n- Next: " in text


def test_an_event_has_its_chapter():
    found = headings(DOCS / "reference" / "events.md")
    assert [title for title in found if title in {kind.__name__ for kind in EVENT_TYPES}] == [
        kind.__name__ for kind in EVENT_TYPES
    ]


@pytest.mark.parametrize("state", State)
def test_a_state_is_explained(state):
    assert f"\n| {state} | " in (DOCS / "reference" / "states.md").read_text()


@every_page
def test_a_page_has_one_title_and_begins_with_it(page):
    levels = [len(marks) for marks, _ in HEADING.findall(prose(page))]
    assert levels.count(1) == 1
    assert page.read_text().startswith("# ")


@every_page
def test_a_link_leads_somewhere(page):
    broken = []
    for target in LINK.findall(prose(page)):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


@every_page
def test_an_example_in_json_is_json(page):
    for _, language, body in FENCE.findall(page.read_text()):
        if language == "json":
            json.loads(body)


def test_every_page_can_be_reached_from_the_index():
    seen, new = set(), {DOCS / "index.md"}
    while new:
        page = new.pop()
        seen.add(page)
        links = {
            (page.parent / link.partition("#")[0]).resolve() for link in LINK.findall(prose(page))
        }
        new |= {link for link in links if link.suffix == ".md" and link.exists()} - seen
    pages = {page for page in DOCS.rglob("*.md") if "adr" not in page.parts}
    assert pages - seen == set()
