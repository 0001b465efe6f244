"""Whatever people, platforms and admins can store stays a text on every page (S-08)."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest
from aiohttp.test_utils import TestClient, TestServer
from sqlite_utils import Database

from claasbot.domain.conversation import ChatAddress
from claasbot.storage import accounts, api_keys, audit, chats
from claasbot.storage.store import Store
from claasbot.web.server import make_app
from tests.hostile.markup import HOSTILE_TEXTS

from .conftest import NOON, Site
from .lesson_rows import learned
from .test_pages import Elements, shape
from .visitors import session_of

BATCH = 60
BATCHES = [HOSTILE_TEXTS[at : at + BATCH] for at in range(0, len(HOSTILE_TEXTS), BATCH)]
LISTS = ("/", "/people", "/feedback", "/lessons", "/door", "/audit", "/errors", "/security", "/playground")
MAY_NOT_APPEAR = {"iframe", "object", "embed", "base", "style", "math", "video", "marquee"}
LOADS = ("src", "href", "action", "formaction", "data", "srcdoc")


def fill(db: Database, texts: tuple[str, ...]) -> None:
    """Each text as a name, a message, an answer, feedback, a reason, an error, a persona, a key and what one did."""
    for n, text in enumerate(texts):
        verdict = (text,) if n % 2 else ()
        learned(db, text, verdict=verdict, account=f"a{n}", job_id=f"{n:024x}")
        there = ChatAddress(platform="telegram", bot_account="42", chat=f"{n}")
        accounts.ask_to_pair(db, there, f"s{n}", text, NOON, lasts=timedelta(hours=1), max_pending=1_000)
        chats.visited(db, there, is_group=False)
        chats.keep(db, there, dataclasses.replace(chats.room(db, there), persona=text))
        api_keys.add(db, f"token {n}", text, frozenset({"read"}), text, NOON, NOON + timedelta(days=1))
        audit.add(db, f"telegram:{text}", text, NOON, whom=text)


async def pages_of(site: Site, n: int) -> dict[str, str]:
    """All of them, and a few of single people and lessons."""
    headers = await session_of(site, "eve", "owner")
    site.http.session.headers.update(headers)
    single = [f"/people/{one}" for one in range(1, n + 1, 12)] + [f"/lessons/{one:024x}" for one in range(0, n, 12)]
    return {path: await site.page(path) for path in (*LISTS, *single)}


def test_there_are_at_least_500_of_them_and_all_differ():
    assert len(set(HOSTILE_TEXTS)) == len(HOSTILE_TEXTS) >= 500


@pytest.mark.parametrize("batch", range(len(BATCHES)))
async def test_no_stored_text_becomes_markup_on_any_page(stranger, batch):
    """The same elements with the same attributes as with harmless texts, nothing that runs, and the text to read."""
    texts = BATCHES[batch]
    await stranger.parts.store.run(fill, texts)
    hostile = await pages_of(stranger, len(texts))
    harmless = await _harmless_pages(stranger, len(texts))
    for path, page in hostile.items():
        assert shape(page) == shape(harmless[path]), path
        _nothing_runs(page, path)
    shown = Elements(hostile["/feedback"]).text
    for text in texts:
        assert text.replace("\x00", "\ufffd") in shown or text in shown, text


def _nothing_runs(page: str, path: str) -> None:
    for tag, attributes in Elements(page).found:
        assert tag not in MAY_NOT_APPEAR, (path, tag)
        assert not [name for name in attributes if name.startswith("on")], (path, tag, attributes)
        assert tag != "script" or (attributes["src"] or "").startswith("/static/")
        for name in LOADS:
            assert (attributes.get(name) or "/").startswith(("/", "#", "?")), (path, tag, attributes)


async def _harmless_pages(stranger: Site, n: int) -> dict[str, str]:
    store = Store(None)
    await store.open()
    site = Site(parts=dataclasses.replace(stranger.parts, store=store), http=None)  # type: ignore[arg-type]
    site.http = TestClient(TestServer(make_app(site.parts)))
    try:
        async with site.http:
            await store.run(fill, ("harmless",) * n)
            return await pages_of(site, n)
    finally:
        await store.close()


async def test_what_a_browser_says_of_itself_stays_a_text(stranger):
    from .test_sign_in import token_of

    for text in HOSTILE_TEXTS[::10]:
        if text.isprintable() and text.isascii():
            form = {"token": await token_of(stranger)}
            answer = await stranger.http.post(
                "/sign-in", data=form, headers={"User-Agent": text}, allow_redirects=False
            )
            assert answer.status == 303
            page = await stranger.page("/security")
            _nothing_runs(page, "/security")
            assert text[:70] in Elements(page).text


@pytest.mark.parametrize("where", ["/sign-in?token={}", "/people/{}", "/lessons/{}", "/nothing/{}", "/static/{}"])
async def test_what_an_address_holds_stays_a_text(stranger, where):
    from urllib.parse import quote

    stranger.http.session.headers.update(await session_of(stranger, "eve", "owner"))
    for text in HOSTILE_TEXTS[::7]:
        async with stranger.http.get(where.format(quote(text, safe=""))) as answer:
            if answer.content_type == "text/html":
                _nothing_runs(await answer.text(), where)
