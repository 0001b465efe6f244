"""What Prometheus is told: the cycle in numbers, and nobody's name, chat or words in any label."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from claasbot.domain.conversation import ChatAddress, Said
from claasbot.domain.gate import Canary, Limits, judge_canary, judge_training
from claasbot.domain.job import ExperienceScore, TrainingResult
from claasbot.storage import inbox
from claasbot.storage.rows import change
from claasbot.web.metrics import METERS, OTHER, reason_class
from tests.whole_bot import WholeBot, whole_bot

HOSTILE = 'Ada"} 1\nclaasbot_forged{name="x'


@pytest.fixture
async def bot(tmp_path: Path):
    async with whole_bot(tmp_path / "d") as bot:
        yield bot


async def samples(bot: WholeBot) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """By (name, labels)."""
    text = await bot.get("/metrics")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_a_lesson_is_counted_from_the_message_to_the_promotion(bot):
    await bot.taught()
    await bot.chat.say("ada", "And snow?")
    await bot.settled()
    found = await samples(bot)

    def of(name: str, **labels: str) -> float:
        return found[name, tuple(sorted(labels.items()))]

    assert of("claasbot_answers_total", platform=OTHER, policy="base") == 1
    assert of("claasbot_answers_total", platform=OTHER, policy="adapter") == 1
    assert of("claasbot_tokens_total", platform=OTHER, policy="base") > 1
    assert of("claasbot_first_token_seconds_count", policy="base") == 1
    assert of("claasbot_messages_total", platform=OTHER, outcome="done") == 4
    assert of("claasbot_feedback_total", kind="text") == 1
    assert of("claasbot_lessons_total", outcome="promoted") == 1
    assert of("claasbot_lesson_seconds_count", part="gate") == 1
    assert of("claasbot_experiences", state="consumed") == 1
    assert of("claasbot_versions", state="promoted") == 1
    assert of("claasbot_waiting", queue="inbox") == 0
    assert [of("claasbot_light", part=part) for part in ("server", "trainer", "store")] == [1, 1, 1]
    assert of("claasbot_learning") == 1
    assert of("claasbot_adapters_loaded") == 1
    assert of("claasbot_store_unit_seconds_count") > 10
    assert of("claasbot_store_bytes") > 4096
    assert of("process_resident_memory_bytes") > 2**20 and of("process_open_fds") > 3


async def test_what_was_there_at_the_start_is_not_counted_again(tmp_path):
    async with whole_bot(tmp_path / "d") as bot:
        await bot.taught()
        await bot.settled()
    async with whole_bot(tmp_path / "d") as bot:
        found = await samples(bot)
    assert not [name for name, _ in found if name in ("claasbot_answers_total", "claasbot_lessons_total")]
    assert found["claasbot_experiences", (("state", "consumed"),)] == 1


async def test_a_count_does_not_fall_when_rows_go(site):
    def handled(db, key: str) -> None:
        address = ChatAddress(platform="telegram", bot_account="42", chat="7")
        event = Said(
            address=address, account="7", display_name="Ada", update_key=key, is_group=False, text="x", message_key=key
        )
        inbox.handled(db, inbox.add(db, event, site.now), site.now)

    counted = 'claasbot_messages_total{outcome="done",platform="telegram"}'
    await site.parts.store.run(handled, "1")
    assert f"{counted} 1.0" in await site.page("/metrics")
    await site.parts.store.run(change, "DELETE FROM inbox")
    site.later(seconds=3)
    assert f"{counted} 1.0" in await site.page("/metrics")
    await site.parts.store.run(handled, "2")
    site.later(seconds=3)
    assert f"{counted} 2.0" in await site.page("/metrics")


async def test_no_label_holds_anything_but_what_is_written_down_for_it(bot):
    await bot.chat.say("ada", HOSTILE)
    reply = await bot.chat.say(HOSTILE, "What is rain?")
    await bot.chat.command("ada", "feedback", HOSTILE, str(reply.completion_id))
    await bot.chat.command("ada", HOSTILE)
    await bot.settled()
    allowed = {one.name: one.labels for one in METERS}
    n_checked = 0
    for name, labels in await samples(bot):
        if not name.startswith("claasbot_"):
            continue
        meter = max((one for one in allowed if name.startswith(f"claasbot_{one}")), key=len)
        for label, found in labels:
            assert label == "le" or found in (*allowed[meter][label], OTHER), (name, label, found)
            n_checked += 1
    print(json.dumps({"labels": n_checked}))
    assert n_checked > 50
    assert "forged" not in await bot.get("/metrics")


async def test_nobody_reads_them_without_a_session(stranger):
    assert (await stranger.http.get("/metrics")).status == 401


async def test_an_admin_reads_them_in_the_text_format(site):
    answer = await site.http.get("/metrics")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert 'claasbot_light{part="trainer"} 0.0' in await answer.text()


async def test_asking_often_does_not_ask_the_store_often(site):
    for _ in range(5):
        await site.page("/metrics")
    assert site.asked.count(("status",)) == 1
    site.later(seconds=3)
    await site.page("/metrics")
    assert site.asked.count(("status",)) == 2


def every_reason() -> list[str]:
    """All that the gate can say, from results that are wrong in every way."""
    nan = float("nan")
    bad = TrainingResult(
        job_id="", version_name="p1.v1", weights_sha256="", finite=True, delta_norm=0.0, mismatch_nats=9.0,
        kl_new_old_nats=nan, kl_base_nats=nan, new_logprobs=(), parent_logprobs=(), steps=(), learned=(),
        earlier=(ExperienceScore(experience_id=1, before_nats=0.0, after_nats=9.0),),
    )  # fmt: skip
    broken, limits = replace(bad, finite=False), Limits()
    loop = "again and " * 20
    canaries = [
        Canary(served_vs_new_nats=9.0, served_vs_parent_nats=0.0, checksum_matches=None, samples=(loop,)),
        Canary(served_vs_new_nats=0.0, served_vs_parent_nats=0.0, checksum_matches=False, samples=("",)),
        Canary(served_vs_new_nats=0.0, served_vs_parent_nats=0.0, checksum_matches=None, samples=(), explanation="no"),
    ]
    said = ["it could not be served: no", *judge_training(broken, limits).reasons, *judge_training(bad, limits).reasons]
    return [*said, *(r for one in canaries for r in judge_canary(one, limits).reasons)]


def test_every_reason_of_the_gate_has_a_class():
    reasons = every_reason()
    assert len(reasons) >= 10
    assert OTHER not in {reason_class(reason) for reason in reasons}
    assert reason_class("what Ada said") == OTHER
