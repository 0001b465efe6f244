"""R-19: who floods waits for themselves; everybody else is answered and taught as before."""

from __future__ import annotations

import asyncio
import statistics
from collections import Counter
from pathlib import Path

from claasbot.domain.conversation import Said
from claasbot.services.crowding import TOO_MANY
from claasbot.settings import Settings
from claasbot.storage.rows import rows
from claasbot.storage.store import Store
from tests.faults.conftest import scaled
from tests.faults.test_cycle_poison import HastyClock
from tests.services.world import World, running_world

N_MESSAGES, N_OTHERS, N_ROUNDS = scaled(1_000, 200), 9, scaled(20, 5)


class OneAtATime:
    """A server that serves one answer after the other, each as long as the next: time is counted in answers."""

    def __init__(self, world: World) -> None:
        self.n_served = 0
        self._counter = asyncio.Lock()
        world.server.faults.before_token = self._piece

    async def _piece(self) -> None:
        async with self._counter:
            await asyncio.sleep(0)
            self.n_served += 1


async def p95(world: World, server: OneAtATime) -> float:
    """Of nine people who ask at the same time, again and again: how many pieces were served until each was answered."""

    async def ask(account: str) -> int:
        began = server.n_served
        await world.chat.say(account, "What is rain?")
        return server.n_served - began

    waits = [
        wait
        for _ in range(N_ROUNDS)
        for wait in await asyncio.gather(*(ask(f"person{number}") for number in range(N_OTHERS)))
    ]
    return statistics.quantiles(waits, n=20)[-1]


async def test_nobody_waits_longer_because_one_person_floods_and_that_person_is_told_so(
    tmp_path: Path, store: Store, totals: Counter[str]
) -> None:
    async with running_world(tmp_path, Settings(), store) as world:
        server = OneAtATime(world)
        quiet = await p95(world, server)
        for number in range(N_MESSAGES):
            said = Said(
                address=world.chat.chat_of("flooder"),
                account="flooder",
                update_key=f"flood{number}",
                text="Now!",
                message_key=f"flood{number}",
                reply_to=f"elsewhere{number}",  # so that no answer serves two
            )
            await world.chat.post(said)
        flooded = await p95(world, server)
        await world.cycle.settled()
        found = Counter(
            row["error"] for row in await world.store.run(rows, "SELECT error FROM inbox WHERE account = 'flooder'")
        )
        n_answered = len(world.chat.said_to("flooder", "reply"))
        told = [notice for notice in world.chat.said_to("flooder", "notice") if notice.text == TOO_MANY.text]
        totals.update({"rows in": N_MESSAGES, "turned away": N_MESSAGES - found[""]})
        totals["unanswered"] += found[""] - n_answered
        print(f"p95 in pieces of an answer: {quiet:.0f} quiet, {flooded:.0f} flooded; {dict(found)}")
        assert flooded <= 2 * quiet
        assert n_answered == found[""]
        assert found.total() == N_MESSAGES
        assert found["turned away: too many wait"] > 0
        assert len(told) == 1
        assert not [
            notice
            for n in range(N_OTHERS)
            for notice in world.chat.said_to(f"person{n}", "notice")
            if notice.text == TOO_MANY.text
        ]


async def test_training_slots_are_shared_within_one(tmp_path: Path, store: Store, totals: Counter[str]) -> None:
    """Ten people, one of whom has ten times as much to teach."""
    settings = Settings(learning={"debounce_s": 0.0, "max_experiences": 1})
    n_each = 3
    async with running_world(tmp_path, settings, store, clock=HastyClock()) as world:
        await world.cycle.steering.set_paused(True, "console:host")
        for number in range(10):
            account = f"person{number}"
            await world.chat.command(account, "optin")
            for _ in range(n_each * 10 if number == 0 else n_each):
                reply = await world.chat.say(account, "What is rain?")
                await world.chat.command(account, "feedback", "Shorter.", str(reply.completion_id))
        await world.cycle.steering.set_paused(False, "console:host")
        await world.cycle.settled()
        order = [row["person_id"] for row in await world.store.run(rows, "SELECT person_id FROM job ORDER BY rowid")]
        totals.update({"rows in": len(order), "consumed": len(order)})
        for n_slots in range(10, 10 * n_each + 1, 10):
            shares = Counter(order[:n_slots])
            assert max(shares.values()) - min(shares[person] for person in range(1, 11)) <= 1
        assert len(order) == n_each * 19
