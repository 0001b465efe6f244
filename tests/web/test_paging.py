"""S-24: lists come in pages of two hundred, and following `Older` meets every row once, also while new ones come."""

from __future__ import annotations

import re

import pytest
from sqlite_utils import Database

from .lesson_rows import learned

N = 430
_NEXT = re.compile(r'<a href="(\?[^"]+)" rel="next">')


def many(db: Database, start: int = 0, n: int = N) -> None:
    """As many people, each with one answer, one feedback and one lesson."""
    for one in range(start, start + n):
        learned(db, f"text {one}", account=f"account{one}", job_id=f"{one:024x}")


def one_person(db: Database) -> int:
    """With more feedback than a page holds."""
    for one in range(250):
        person_id = learned(db, f"text {one}", verdict=("no",), account="ada", job_id=f"{one:024x}")
    return person_id


async def pages(site, path: str) -> list[str]:
    """The first page and all older ones."""
    found = []
    while True:
        text = await site.page(path)
        found.append(text)
        links = _NEXT.findall(text)
        if not links:
            return found
        assert len(links) == 1 and len(found) < 10
        path = path.partition("?")[0] + links[0].replace("&amp;", "&")


@pytest.mark.parametrize(
    ("path", "row"),
    [("/people", r'href="/people/(\d+)"'), ("/feedback", r">text (\d+)<"), ("/lessons", r'href="/lessons/(\w+)"')],
)
async def test_following_older_meets_every_row_once_newest_first(site, path, row):
    await site.parts.store.run(many)
    found = [list(dict.fromkeys(re.findall(row, text))) for text in await pages(site, path)]
    assert [len(page) for page in found] == [200, 200, 30]
    met = [one for page in found for one in page]
    assert len(set(met)) == N
    assert met == sorted(met, key=lambda one: int(one, 16) if len(one) == 24 else int(one), reverse=True)


async def test_a_persons_page_leads_to_the_rows_that_it_does_not_hold(site):
    person_id = await site.parts.store.run(one_person)
    text = await site.page(f"/people/{person_id}")
    assert f'href="/feedback?person={person_id}"' in text and f'href="/lessons?person={person_id}"' in text


async def test_rows_that_come_meanwhile_move_no_page(site):
    await site.parts.store.run(many)
    first = await site.page("/feedback")
    await site.parts.store.run(many, N, 5)
    second = await site.page(f"/feedback{_NEXT.findall(first)[0]}")
    met = [re.findall(r">text (\d+)<", page) for page in (first, second)]
    assert (met[0][-1], met[1][0]) == ("230", "229")


@pytest.mark.parametrize(("path", "row"), [("/feedback", r">text (\d+)<"), ("/lessons", r'href="/lessons/(\w+)"')])
async def test_one_persons_rows_have_pages_too_and_nobody_elses(site, path, row):
    person_id = await site.parts.store.run(one_person)
    await site.parts.store.run(learned, "somebody else", account="bob", job_id="b" * 24)
    found = [set(re.findall(row, text)) for text in await pages(site, f"{path}?person={person_id}")]
    assert [len(page) for page in found] == [200, 50]
    assert not any("somebody else" in text for text in await pages(site, f"{path}?person={person_id}"))


@pytest.mark.parametrize(
    "query", ["before=x", "before=-1", "before=1e9", "before=" + "9" * 30, "person=%D9%A1", "person="]
)
async def test_a_page_that_is_none_is_refused_in_one_line(site, query):
    text = await site.page(f"/feedback?{query}", status=400)
    assert "it should be a whole number" in text


async def test_lessons_before_one_that_never_was_are_not_found(site):
    await site.page("/lessons?before=nothing", status=404)
