"""Events in, answers out: what is accepted, what is refused, and in which words."""

from __future__ import annotations

import json

import pytest

from claasbot.domain.conversation import Commanded, Pressed, Reacted, Said, Stopped
from claasbot.errors import (
    BadInput,
    ChatError,
    ImpossibleTransition,
    NotFound,
    NotYours,
    ServerDown,
    StoreError,
)

from .conftest import NOON
from .lesson_rows import JOB, learned

SAID = {"kind": "said", "update_key": "k1", "text": "What is rain?"}


async def line(answer) -> str:
    assert answer.content_type == "application/json"
    error = (await answer.json())["error"]
    assert "\n" not in error
    return error


@pytest.mark.parametrize(
    ("facts", "kind", "fields"),
    [
        (SAID, Said, {"text": "What is rain?", "message_key": "k1", "reply_to": None}),
        ({**SAID, "reply_to": "7"}, Said, {"reply_to": "7"}),
        (
            {"kind": "commanded", "update_key": "k", "command": "correct", "argument": "Paris.", "message_key": "7"},
            Commanded,
            {"command": "correct", "argument": "Paris.", "message_key": "7"},
        ),
        ({"kind": "commanded", "update_key": "k", "command": "undo"}, Commanded, {"argument": "", "message_key": None}),
        ({"kind": "pressed", "update_key": "k", "action": "consent:yes"}, Pressed, {"action": "consent:yes"}),
        (
            {"kind": "reacted", "update_key": "k", "message_key": "7", "reaction": "👎", "removed": True},
            Reacted,
            {"reaction": "👎", "removed": True},
        ),
        ({"kind": "stopped", "update_key": "k"}, Stopped, {}),
    ],
)
async def test_an_event_is_accepted_as_what_it_is(site, facts, kind, fields):
    answer = await site.post("/api/events", facts)
    assert answer.status == 202
    [event] = site.accepted
    assert type(event) is kind
    assert {name: getattr(event, name) for name in fields} == fields
    assert (event.account, event.update_key, event.at) == ("admin", facts["update_key"], NOON)
    assert event.address == site.parts.playground.address


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "must be a JSON object"),
        ('"said"', "must be a JSON object"),
        ("{}", "'kind' is missing"),
        ('{"kind": "edited", "update_key": "k"}', "'edited' is unknown; use one of 'said'"),
        ('{"kind": ["said"], "update_key": "k"}', "unknown"),
        ('{"kind": "said", "text": "x"}', "'update_key' is missing"),
        (
            '{"kind": "said", "text": "x", "update_key": ""}',
            "'update_key' is '': string should have",
        ),
        (json.dumps({**SAID, "update_key": "k" * 81}), "at most 80 characters"),
        ('{"kind": "said", "update_key": "k"}', "'text' is missing"),
        ('{"kind": "said", "update_key": "k", "text": 7}', "'text' is '7': input should be a valid string"),
        ('{"kind": "said", "update_key": "k", "text": "\\ud800"}', "not valid JSON"),  # a lone surrogate
        ('{"kind": "said", "update_key": "k", "text": "x", "account": "ada"}', "'account' is unknown here"),
        ('{"kind": "said", "update_key": "k", "text": "x", "address": {}}', "'address' is unknown here"),
        (
            '{"kind": "reacted", "update_key": "k", "message_key": "1", "reaction": "x", "removed": 1}',
            "should be a valid boolean",
        ),
        (
            '{"kind": "pressed", "update_key": "k", "action": null}',
            "'action' is 'None': input should be",
        ),
    ],
)
async def test_what_cannot_be_an_event_is_refused_in_one_line(site, body, words):
    headers = {"X-CSRF-Token": site.csrf, "Content-Type": "application/json"}
    answer = await site.http.post("/api/events", data=body, headers=headers)
    assert answer.status == 400
    assert words in await line(answer)
    assert site.accepted == []


async def test_only_json_is_read(site):
    answer = await site.http.post("/api/events", data=b"{}", headers={"X-CSRF-Token": site.csrf})
    assert (answer.status, "send application/json" in await line(answer)) == (400, True)


async def test_latin1_is_not_json(site):
    headers = {"X-CSRF-Token": site.csrf, "Content-Type": "application/json"}
    answer = await site.http.post("/api/events", data='{"kind": "ä"}'.encode("latin-1"), headers=headers)
    assert (answer.status, "UTF-8" in await line(answer)) == (400, True)


async def test_a_body_over_the_limit_is_refused(site):
    fits = await site.post("/api/events", {**SAID, "text": "x" * 200_000})
    assert fits.status == 202  # how long a message may be is for the services to say
    answer = await site.post("/api/events", {**SAID, "text": "x" * 300_000})
    assert (answer.status, await line(answer)) == (413, "The request is larger than 256 KiB; shorten it.")


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (BadInput("Too long."), 400),
        (NotYours("Somebody else's."), 404),
        (NotFound("Nothing there."), 404),
        (ImpossibleTransition("No."), 409),
        (ServerDown("Starting."), 503),
        (StoreError("Full."), 503),
        (ChatError("Not now."), 503),
    ],
)
async def test_an_error_of_ours_is_its_own_line(site, failure, status):
    site.failure = failure
    answer = await site.post("/api/train-now")
    assert (answer.status, await line(answer)) == (status, str(failure))


async def test_an_unknown_error_is_an_id(site, caplog):
    site.failure = RuntimeError("secret detail")
    answer = await site.post("/api/train-now")
    assert answer.status == 500
    assert "secret" not in await line(answer)


async def test_nothing_is_accepted_before_the_bot_runs(site):
    from claasbot.web.playground import Playground

    asleep = Playground("playground", "main")
    with pytest.raises(ChatError, match="starting or stopping"):
        await asleep.receive(Said(address=asleep.address, account="admin", update_key="k", text="x"))


async def test_the_transcript_tells_what_became_of_feedback(site):
    await site.parts.store.run(learned, "shorter")
    answer = await site.http.get("/api/transcript")
    facts = await answer.json()
    assert (facts["person_id"], facts["version_name"], facts["consent"], facts["notices"]) == (
        1,
        "p1.v1",
        "unasked",
        [],
    )
    assert [turn["role"] for turn in facts["turns"]] == ["user", "assistant"]
    [feedback] = facts["turns"][1]["feedback"]
    assert feedback == {
        "kind": "text", "text": "shorter", "state": "consumed", "reason": "", "job_id": JOB,
        "is_withdrawn": False, "learned": "p1.v1",
    }  # fmt: skip


async def test_a_stranger_to_the_store_has_an_empty_transcript(site):
    facts = await (await site.http.get("/api/transcript")).json()
    assert facts == {"person_id": None, "version_name": "base", "consent": "unasked", "turns": [], "notices": []}


async def test_two_versions_are_compared_on_one_question(site):
    await site.parts.store.run(learned, "shorter")
    facts = await (await site.post("/api/compare", {"question": " What is rain? "})).json()
    assert (facts["question"], facts["before"]["version_name"], facts["now"]["text"]) == (
        "What is rain?",
        "base",
        "by p1.v1",
    )
    assert site.asked == [("compare", 1, " What is rain? ")]


@pytest.mark.parametrize("facts", [{}, {"question": 7}, {"question": ""}])
async def test_a_comparison_needs_a_question(site, facts):
    answer = await site.post("/api/compare", facts)
    assert (answer.status, "question" in await line(answer)) == (400, True)


async def test_everything_stored_is_handed_out_as_a_file(site):
    await site.parts.store.run(learned, "shorter")
    answer = await site.http.get("/api/export")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="claasbot-p1.zip"'
    assert answer.headers["Content-Type"] == "application/zip"
    assert (await answer.read(), site.asked) == (b"PK everything", [("export", 1)])


async def test_nobody_is_exported_over_the_web_but_oneself(site):
    await site.parts.store.run(learned, "shorter")
    assert (await site.post("/api/people/1/export")).status == 403
    assert site.asked == []


@pytest.mark.parametrize("path", ["/api/export", "/api/compare"])
async def test_nobody_is_made_by_looking(site, path):
    answer = await (site.http.get(path) if path.endswith("export") else site.post(path, {"question": "x"}))
    assert (answer.status, "say something first" in await line(answer)) == (404, True)
    assert site.asked == []


async def test_the_status_is_readable_by_programs(site):
    facts = await (await site.http.get("/api/status")).json()
    assert facts["lights"][1] == {"name": "trainer", "state": "down", "detail": ""}
    assert (facts["queues"], facts["is_learning"]) == ({"inbox": 1, "lessons": 2, "outbox": 3}, True)


@pytest.mark.parametrize(
    ("path", "facts", "call"),
    [
        ("/api/learning", {"paused": True}, ("set_paused", True)),
        ("/api/learning", {"paused": False}, ("set_paused", False)),
        ("/api/train-now", None, ("train_now",)),
        ("/api/people/12/undo", None, ("undo", 12)),
        ("/api/people/12/versions/3/roll-back", None, ("roll_back", 12, 3)),
        ("/api/people/12/lessons/ab12/revoke", None, ("revoke", 12, "ab12")),
    ],
)
async def test_an_admin_acts_by_json(site, path, facts, call):
    assert (await site.post(path, facts)).status == 200
    assert site.asked == [call]


@pytest.mark.parametrize("facts", [{}, {"paused": "yes"}, {"paused": 1}, [True]])
async def test_pausing_says_yes_or_no(site, facts):
    assert (await site.post("/api/learning", facts)).status == 400
    assert site.asked == []


@pytest.mark.parametrize("number", ["0x1", "1.5", "one", "-1", "9" * 19, "١"])
async def test_a_person_is_a_number(site, number):
    assert (await site.post(f"/api/people/{number}/undo")).status == 404
    assert site.asked == []


async def test_a_form_with_a_field_twice_is_refused(site):
    """Which of the two would count, nobody has to guess (ASVS 15.3.7)."""
    form = [("csrf_token", site.csrf), ("paused", "yes"), ("paused", "no")]
    answer = await site.http.post("/api/learning", data=form, allow_redirects=False)
    assert answer.status == 400 and "a field twice" in await answer.text()
    assert site.asked == []
