"""The page's whole way through the real services: consent, answer, feedback, lesson, the new version, undo."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer

from claasbot.adapter_files import WEIGHTS, sha256_of
from claasbot.app import cycle_rules
from claasbot.domain.adapter import AdapterVersion
from claasbot.engines.dry_run import DryRunEngine
from claasbot.inference.scripted import ScriptedServer, toy_logprobs
from claasbot.services.clock import utc_now
from claasbot.services.cycle import Cycle, Outside
from claasbot.services.health import Light
from claasbot.settings import Settings
from claasbot.web.parts import WebParts
from claasbot.web.server import make_app

from .conftest import Site


class Page:
    """What playground.js does, without drawing."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.frames: list[tuple[str, dict]] = []
        self._n_events = 0

    async def listen(self) -> None:
        async with self.site.http.get("/api/stream") as response:
            while block := (await response.content.readuntil(b"\n\n")).decode():
                fields = dict(line.split(": ", 1) for line in block.strip().splitlines())
                self.frames.append((fields["event"], json.loads(fields["data"])))

    async def send(self, kind: str, **facts: object) -> None:
        self._n_events += 1
        answer = await self.site.post("/api/events", {"kind": kind, "update_key": f"k{self._n_events}", **facts})
        assert answer.status == 202, await answer.text()

    async def see(self, kind: str, says: str = "", **facts: object) -> dict:
        """The next frame like this; what stands before it is passed."""
        async with asyncio.timeout(10):
            while True:
                while self.frames:
                    found, data = self.frames.pop(0)
                    if found == kind and says in data.get("text", "") and facts.items() <= data.items():
                        return data
                await asyncio.sleep(0.002)

    async def transcript(self) -> dict:
        return await (await self.site.http.get("/api/transcript")).json()


async def _no_lights() -> tuple[Light, ...]:
    return ()


@pytest.fixture
async def page(store, tmp_path: Path) -> AsyncIterator[Page]:
    site = Site(parts=None, http=None)  # type: ignore[arg-type]
    server = ScriptedServer()
    drawn = site.wire(store)

    async def expected(version: AdapterVersion) -> str | None:
        return sha256_of(tmp_path / version.folder / WEIGHTS)

    async def restart() -> None:
        server.restart()

    outside = Outside(
        store=store, server=server, engine=DryRunEngine(toy_logprobs), clients=(drawn.playground, drawn.console),
        data=tmp_path, restart_server=restart, expected_checksum=expected, lights=_no_lights,
    )  # fmt: skip
    cycle = Cycle(outside, cycle_rules(Settings(learning={"debounce_s": 0.0})))
    site.parts = WebParts(
        store=store, clock=utc_now, playground=drawn.playground, console=drawn.console, status=cycle.status,
        compare=cycle.comparing.compare, export=cycle.exporting.made, undo=cycle.steering.undo,
        roll_back=cycle.steering.roll_back,
        revoke=cycle.steering.revoke,
        set_paused=cycle.steering.set_paused, train_now=cycle.steering.train_now, session_hours=1,
        let_in=cycle.admitting.let_in, requeue=cycle.steering.requeue, backup=cycle.backup,
    )  # fmt: skip
    site.http = TestClient(TestServer(make_app(site.parts)))
    async with site.http:
        tasks = [asyncio.create_task(cycle.run())]
        await site.sign_in()
        page = Page(site)
        tasks.append(asyncio.create_task(page.listen()))
        await page.see("hello")
        yield page
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await cycle.close()


async def test_from_the_first_message_to_the_lesson_and_back(page):
    await page.send("said", text="What is rain?")
    first = await page.see("reply-finished", reply_to="k1")
    assert first["version_name"] == "base"
    card = await page.see("notice")
    await page.send("pressed", action=card["buttons"][0]["action"], message_key=card["message_key"])
    await page.see("notice", data={"consent": "granted"})

    await page.send("reacted", message_key=first["message_key"], reaction="👎")
    asked = await page.see("notice")
    assert asked["data"]["completion_id"] == first["completion_id"]
    await page.send("pressed", action=asked["buttons"][0]["action"], message_key=asked["message_key"])
    for mark in ("noted", "queued", "learned"):
        await page.see("mark", message_key=first["message_key"], mark=mark)
    told = await page.see("notice")
    assert "p1.v1" in told["text"] and [one["label"] for one in told["buttons"]] == ["See difference", "Undo"]

    facts = await page.transcript()
    assert (facts["version_name"], facts["consent"]) == ("p1.v1", "granted")
    thumb, words = facts["turns"][1]["feedback"]
    assert (thumb["kind"], thumb["state"]) == ("thumbs_down", None)
    assert (words["kind"], words["state"], words["learned"]) == ("text", "consumed", "p1.v1")

    await page.send("said", text="And snow?")
    assert (await page.see("reply-finished"))["version_name"] == "p1.v1"
    compared = await (await page.site.post("/api/compare", {"question": "And snow?"})).json()
    assert [compared[side]["version_name"] for side in ("before", "now")] == ["base", "p1.v1"]

    await page.send("commanded", command="undo")
    await page.see("notice", text="Undone: the base model answers you now.")
    assert (await page.transcript())["version_name"] == "base"


async def test_a_correction_names_its_answer(page):
    await page.send("commanded", command="optin")
    await page.see("notice")
    for text in ("one", "two"):
        await page.send("said", text=text)
    first = await page.see("reply-finished")
    await page.see("reply-finished")
    await page.send("commanded", command="correct", argument="Paris.", message_key=first["message_key"])
    await page.see("mark", message_key=first["message_key"], mark="learned")


async def test_a_message_that_cannot_be_read_is_a_problem_and_leaves_nothing_open(page):
    await page.send("said", text="x" * 9_000)
    assert "9,000 characters" in (await page.see("notice"))["text"]
    with page.site.parts.playground.subscribed(page.site.parts.playground.address) as tab:
        hello = await tab.next()
    assert hello.data == {"open": None, "waiting": []}


async def test_forgetting_leaves_an_empty_page_with_its_receipt(page):
    await page.send("said", text="my secret")
    await page.see("reply-finished")
    await page.send("commanded", command="forget")
    asked = await page.see("notice", says="Delete")
    await page.send("pressed", action="forget:yes", message_key=asked["message_key"])
    await page.see("notice", says="Forgotten")
    facts = await page.transcript()
    assert facts["turns"] == [] and len(facts["notices"]) == 1
    assert "my secret" not in json.dumps(facts)


async def test_a_lesson_is_taken_back_from_the_page_of_a_person(page):
    await page.send("commanded", command="optin")
    await page.see("notice")
    for text in ("Rain?", "Snow?"):
        await page.send("said", text=text)
        answer = await page.see("reply-finished")
        await page.send("commanded", command="feedback", argument=f"{text} Shorter.", message_key=answer["message_key"])
        await page.see("mark", message_key=answer["message_key"], mark="learned")
    shown = await page.site.page("/people/1")
    [path] = re.findall(r'action="(/api/people/1/lessons/[0-9a-f]+/revoke)".*\n*.*Take lesson 1 back', shown)
    answer = await page.site.post(path)
    assert await answer.json() == {"is_rebuilding": True, "version": "p1.v2"}
    await page.see("notice", says="“Rain? Shorter.” is taken back: p1.v3 answers now.")
    shown = await page.site.page("/people/1")
    assert "What p1.v3 stands on" in shown and "Take lesson 2 back" in shown and "Take lesson 1 back" not in shown
    assert "without a lesson that was taken back" in shown
    assert (await page.site.post(path)).status == 404
