"""The door page, and the one address that Telegram calls."""

from datetime import timedelta

import pytest

from claasbot.domain.conversation import ChatAddress
from claasbot.storage import accounts, chats

THERE = ChatAddress(platform="telegram", bot_account="42", chat="7")


async def test_who_waits_is_shown_and_let_in_by_a_button(site):
    code = await site.parts.store.run(
        accounts.ask_to_pair, THERE, "7", "<Eve>", site.now, lasts=timedelta(hours=1), max_pending=3
    )
    page = await (await site.http.get("/door")).text()
    assert "&lt;Eve&gt;" in page and code in page
    answer = await site.http.post("/api/pair", data={"code": code, "csrf_token": site.csrf}, allow_redirects=False)
    assert (answer.status, answer.headers["Location"]) == (303, "/door")
    assert site.asked == [("let_in", code, "playground:admin")]


async def test_chats_are_shown(site):
    await site.parts.store.run(chats.visited, THERE, is_group=True)
    assert "telegram 7" in await (await site.http.get("/door")).text()


async def test_strangers_are_listed_for_the_terminal(site):
    assert await (await site.http.get("/api/strangers")).json() == []


@pytest.mark.parametrize("body", [{}, [], {"code": 5}])
async def test_a_pairing_without_a_code_is_refused(site, body):
    assert (await site.post("/api/pair", body)).status == 400
    assert site.asked == []


async def test_a_platform_that_calls_needs_no_session_but_the_secret(stranger):
    there = "/webhooks/somewhere/42"
    header = {"X-Somewhere-Secret": "the secret", "Host": "bot.public.example"}
    assert (await stranger.http.post(there, json={"update_id": 1}, headers=header)).status == 200
    assert (await stranger.http.post(there, json={"update_id": 1})).status == 403
    assert (await stranger.http.post("/webhooks/somewhere/43", json={"update_id": 1}, headers=header)).status == 404
    assert (await stranger.http.post("/webhooks/elsewhere/42", json={"update_id": 1}, headers=header)).status == 404
    assert (await stranger.http.post(there, data=b"{", headers=header)).status == 400
    assert stranger.asked == [("webhook", {"update_id": 1})] * 2


async def test_parked_feedback_can_be_tried_again(site):
    answer = await site.post("/api/people/1/feedback/5/requeue")
    assert await answer.json() == {"queued": 5}
    assert site.asked == [("requeue", 1, 5)]
