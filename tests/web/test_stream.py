"""Frames to every tab: in order, whole, and never at the cost of the answer."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

from claasbot.domain.conversation import Button, Reply, Said
from claasbot.storage.rows import text_of
from claasbot.web.api import encoded
from claasbot.web.frames import Frame
from claasbot.web.open_streams import MOST_STREAMS
from claasbot.web.playground import Playground

from .conftest import NOON
from .visitors import key_for


class Tab:
    """One open stream, as a browser reads it."""

    def __init__(self, response) -> None:
        self._response = response

    async def next(self) -> tuple[str, dict[str, Any]]:
        block = (await asyncio.wait_for(self._response.content.readuntil(b"\n\n"), 5)).decode()
        fields = dict(line.split(": ", 1) for line in block.strip().splitlines())
        assert fields["id"].isdecimal()
        return fields["event"], json.loads(fields["data"])

    async def kinds(self, n: int) -> list[str]:
        return [(await self.next())[0] for _ in range(n)]


def said(playground: Playground, text: str, key: str) -> Said:
    return Said(address=playground.address, account="admin", update_key=key, message_key=key, text=text)


async def test_an_answer_arrives_in_order_in_every_tab(site):
    playground = site.parts.playground
    async with site.http.get("/api/stream") as one, site.http.get("/api/stream") as two:
        assert one.content_type == "text/event-stream" and one.headers["Cache-Control"] == "no-store"
        tabs = [Tab(one), Tab(two)]
        for tab in tabs:
            assert await tab.next() == ("hello", {"open": None, "waiting": []})
        await site.post("/api/events", {"kind": "said", "update_key": "k1", "text": "What is rain?"})
        writer = await playground.open_reply(playground.address, "k1")
        await writer.write("Wa")
        await writer.write("ter.")
        data: dict[str, object] = {"finish_reason": "stop", "fell_back": True}
        (key,) = await writer.finish(Reply(text="Water.", completion_id=7, version_name="p1.v1", data=data))
        await playground.mark(playground.address, key, "noted")
        for tab in tabs:
            said_at = {"message_key": "k1", "text": "What is rain?", "at": text_of(NOON)}
            assert await tab.next() == ("said", said_at)
            started = await tab.next()
            assert started[0] == "reply-started" and started[1]["reply_to"] == "k1"
            deltas = [await tab.next(), await tab.next()]
            assert [facts["text"] for _, facts in deltas] == ["Wa", "ter."]
            kind, finished = await tab.next()
            assert kind == "reply-finished" and finished["reply_id"] == started[1]["reply_id"]
            assert (finished["message_key"], finished["completion_id"], finished["version_name"]) == ("7", 7, "p1.v1")
            assert (finished["text"], finished["finish_reason"], finished["fell_back"]) == ("Water.", "stop", True)
            assert await tab.next() == ("mark", {"message_key": "7", "mark": "noted"})


async def test_a_tab_that_comes_late_sees_what_is_being_written_and_what_waits(site):
    playground = site.parts.playground
    for key in ("k1", "k2"):
        await playground.receive(said(playground, f"text of {key}", key))
    writer = await playground.open_reply(playground.address, "k1")
    await writer.write("Wa")
    async with site.http.get("/api/stream") as response:
        kind, hello = await Tab(response).next()
    assert kind == "hello"
    assert (hello["open"]["reply_to"], hello["open"]["text"]) == ("k1", "Wa")
    assert [one["text"] for one in hello["waiting"]] == ["text of k2"]


async def test_the_same_message_sent_twice_is_shown_once(site):
    playground = site.parts.playground
    with playground.subscribed(playground.address) as tab:
        await playground.receive(said(playground, "What is rain?", "k1"))
        await playground.open_reply(playground.address, "k1")
        await playground.receive(said(playground, "What is rain?", "k1"))
        assert [frame.kind for frame in tab.left()] == ["hello", "said", "reply-started"]
    assert len(site.accepted) == 2  # the inbox knows the key; the page must not decide that


async def test_a_slow_tab_is_told_to_reload_and_holds_up_nobody():
    playground = Playground("playground", "main", queue_frames=4)
    with playground.subscribed(playground.address) as slow, playground.subscribed(playground.address) as quick:
        writer = await playground.open_reply(playground.address, None)
        seen = [await quick.next() for _ in range(2)]
        for _ in range(50):
            await writer.write("a")
            seen.append(await quick.next())
        assert await writer.finish(Reply(text="a" * 50, completion_id=1)) == ("1",)
        assert [frame.kind for frame in seen if frame] == ["hello", "reply-started", *["delta"] * 50]
        async with asyncio.timeout(5):
            assert [frame.kind async for frame in slow] == ["reload"]


async def test_a_browser_that_stops_reading_does_not_stop_the_answer(site):
    playground = site.parts.playground
    async with site.http.get("/api/stream"):
        writer = await playground.open_reply(playground.address, None)
        async with asyncio.timeout(5):
            for _ in range(2_000):
                await writer.write("x" * 500)
        assert await writer.finish(Reply(text="done", completion_id=1)) == ("1",)


async def test_a_tab_that_left_is_forgotten(site):
    playground = site.parts.playground
    async with site.http.get("/api/stream") as response:
        await Tab(response).next()
        response.close()
    async with asyncio.timeout(5):
        while playground.n_tabs():
            await playground.send(playground.address, Reply(text="x" * 1_000, notice=True))
            await asyncio.sleep(0.01)


async def test_streams_end_when_the_bot_stops(site):
    async with site.http.get("/api/stream") as response:
        tab = Tab(response)
        await tab.next()
        site.parts.playground.close()
        assert await asyncio.wait_for(response.content.read(), 5) == b""


async def test_notices_outlive_a_reload_of_the_page(site):
    playground = site.parts.playground
    card = Reply(text="May I?", notice=True, buttons=(Button(label="Yes", action="consent:yes"),))
    (key,) = await playground.send(playground.address, card)
    await site.post("/api/events", {"kind": "pressed", "update_key": "k", "action": "consent:yes", "message_key": key})
    [notice] = (await (await site.http.get("/api/transcript")).json())["notices"]
    assert (notice["message_key"], notice["text"], notice["pressed"]) == (key, "May I?", "consent:yes")
    assert notice["buttons"] == [{"label": "Yes", "action": "consent:yes"}]


async def test_an_erasure_takes_the_notices_along(site):
    playground = site.parts.playground
    await playground.send(playground.address, Reply(text="Learned from your note “secret”.", notice=True))
    await playground.send(playground.address, Reply(text="Forgotten.", notice=True, data={"forgotten": True}))
    facts = await (await site.http.get("/api/transcript")).json()
    assert [notice["text"] for notice in facts["notices"]] == ["Forgotten."]


async def test_whoever_is_forgotten_elsewhere_leaves_no_notice_here(site):
    playground = site.parts.playground
    await playground.send(playground.address, Reply(text="Learned from your note “secret”.", notice=True))
    playground.forget("admin")
    assert playground.notices(playground.address) == []


def test_a_frame_is_one_event_whatever_is_in_it():
    frame = Frame(frame_id=3, kind="delta", data={"text": "a\n\nevent: mark\r\ndata: {}\n\n\u2028"})
    lines = encoded(frame).decode().split("\n")
    assert lines[:2] == ["id: 3", "event: delta"] and lines[3:] == ["", ""]
    assert json.loads(lines[2].removeprefix("data: ")) == frame.data


async def test_a_number_that_json_cannot_say_does_not_break_the_page(site):
    playground = site.parts.playground
    data: dict[str, object] = {"before_nats": float("nan"), "after_nats": float("inf"), "version": "p1.v1"}
    await playground.send(playground.address, Reply(text="Learned.", notice=True, data=data))
    text = await (await site.http.get("/api/transcript")).text()
    assert "NaN" not in text and "Infinity" not in text
    assert json.loads(text)["notices"][0]["data"] == {"before_nats": None, "after_nats": None, "version": "p1.v1"}


async def test_one_session_holds_so_many_streams_open_and_no_more(site):
    """A key for reading could take every descriptor of the process otherwise (S-24)."""
    async with AsyncExitStack() as tabs:
        for _ in range(MOST_STREAMS):
            await Tab(await tabs.enter_async_context(site.http.get("/api/stream"))).next()
        for _ in range(3):
            assert (await site.http.get("/api/stream")).status == 503
        headers, _ = await key_for(site, ("read",))
        await Tab(await tabs.enter_async_context(site.http.get("/api/stream", headers=headers))).next()
        assert site.parts.playground.n_tabs() == MOST_STREAMS + 1
