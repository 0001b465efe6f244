"""R-05: whatever comes one to five times and out of order is one row, one reply, one feedback event."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from claasbot.domain.conversation import ChatEvent, Commanded, Reacted, Said
from claasbot.settings import Settings
from claasbot.storage.rows import rows
from claasbot.storage.store import Store
from tests.faults.conftest import scaled
from tests.services.world import World, running_world

N_UPDATES = scaled(10_000, 240)
SEED = 5


def messages(world: World, n: int, people: int) -> list[ChatEvent]:
    """Told apart from each other, so that no answer serves two."""
    return [
        Said(
            address=world.chat.chat_of(f"person{k % people}"),
            account=f"person{k % people}",
            update_key=f"m{k}",
            text=f"Number {k}?",
            message_key=f"m{k}",
            reply_to=f"elsewhere{k}",
        )
        for k in range(n)
    ]


def remarks(world: World, answers: dict[str, list[str]]) -> list[ChatEvent]:
    """A note on every answer, and a thumb."""
    found: list[ChatEvent] = []
    for account, keys in answers.items():
        for key in keys:
            where = {"address": world.chat.chat_of(account), "account": account, "message_key": key}
            found.append(Commanded(**where, update_key=f"f{key}", command="feedback", argument=f"Shorter, {key}."))
            found.append(Reacted(**where, update_key=f"r{key}", reaction="👍", removed=False))
    return found


async def deliver(world: World, events: list[ChatEvent], random_: random.Random) -> int:
    """Each one to five times, in any order."""
    copies = [event for event in events for _ in range(random_.randint(1, 5))]
    random_.shuffle(copies)
    for event in copies:
        await world.chat.post(event)
    return len(copies)


async def redelivered(world: World, n: int, random_: random.Random, totals: Counter[str]) -> None:
    people = max(1, n // 40)
    asked = messages(world, n // 3, people)
    n_copies = await deliver(world, asked, random_)
    await world.cycle.settled(within_s=600)
    answers = {f"person{k}": _answers(world, f"person{k}") for k in range(people)}
    said = remarks(world, answers)
    n_copies += await deliver(world, [*asked, *said], random_)
    await world.cycle.settled(within_s=600)
    n_events, n_replies = len(asked) + len(said), sum(map(len, answers.values()))
    counts = {
        table: (await world.store.run(rows, f"SELECT count(*) AS n FROM {table}"))[0]["n"]
        for table in ("inbox", "turn", "completion", "feedback_event", "experience")
    }
    totals.update({"updates": n_events, "rows in": counts["inbox"]})
    totals["duplicates"] += sum(len(_answers(world, account)) for account in answers) - len(asked)
    totals["lost"] += n_events - counts["inbox"]
    totals["unanswered"] += len(asked) - n_replies
    print(f"{n_copies} deliveries of {n_events} updates: {counts}")
    assert counts == {
        "inbox": n_events,
        "turn": 2 * len(asked),
        "completion": len(asked),
        "feedback_event": 2 * len(asked),
        "experience": len(asked),
    }
    for account, keys in answers.items():
        assert _answers(world, account) == keys, "an update that comes again is not answered again"
        assert len(keys) == len({event.update_key for event in asked if event.account == account})


def _answers(world: World, account: str) -> list[str]:
    return [str(reply.completion_id) for reply in world.chat.said_to(account, "reply")]


async def test_ten_thousand_updates_delivered_one_to_five_times_out_of_order(
    tmp_path: Path, store: Store, totals: Counter[str]
) -> None:
    print(f"seed {SEED}")
    rules = Settings(chat={"max_waiting_each": 0, "max_waiting": 100_000})
    async with running_world(tmp_path, rules, store) as world:
        await redelivered(world, N_UPDATES, random.Random(SEED), totals)
