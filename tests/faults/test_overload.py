"""Ten times as many messages as can be answered: what waits is bounded, the rest is turned away with a sentence.

Shows R-20. The scripted server serves one piece of an answer at a time, so what it can do is known.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from claasbot.domain.conversation import ChatAddress, Said
from claasbot.services.crowding import CROWDED
from claasbot.settings import Settings
from claasbot.storage.rows import rows
from claasbot.storage.store import Store
from tests.faults.conftest import scaled
from tests.services.world import World, running_world

MAX_WAITING = 10
N_CHATS = 60
_PIECE_S = 0.05
_PIECES = 6
CAPACITY_PER_S = 1 / (_PIECE_S * _PIECES)


async def test_ten_times_the_capacity_is_turned_away_in_words_and_over_within_a_minute(tmp_path: Path, totals):
    """R-20: for two minutes."""
    store = Store(tmp_path / "claasbot.db")
    await store.open()
    settings = Settings(data=tmp_path, chat={"max_waiting": MAX_WAITING})
    try:
        async with running_world(tmp_path, settings, store) as world:
            _at_known_speed(world)
            await world.chat.say("nobody", "Hi")
            n_sent, most_waiting, memory_mib = await _overload(world, scaled(120, 4))
            began = time.monotonic()
            await world.cycle.settled()
            recovered_s = time.monotonic() - began
            answer = await asyncio.wait_for(world.chat.say("nobody", "Still there?"), 5)
            errors = await store.run(rows, "SELECT error, count(*) AS n FROM inbox GROUP BY error")
            told = {one.address.chat for one in world.chat.shown if one.text == CROWDED.text}
            answered = {one.address.chat for one in world.chat.shown if one.kind == "reply"}
    finally:
        await store.close()
    by_error = {row["error"]: row["n"] for row in errors}
    n_away = by_error.get("turned away: too many wait", 0)
    totals["unanswered"] += n_sent - n_away - (by_error[""] - 2)
    print(
        f"{n_sent} messages at ten times {CAPACITY_PER_S:.0f}/s: {n_away} turned away, {len(told)} chats told, "
        f"at most {most_waiting} waited, {memory_mib:+.0f} MiB, settled {recovered_s:.1f} s after"
    )
    assert answer.text.endswith("Still there?")
    assert n_sent == n_away + by_error[""] - 2
    assert n_away > n_sent / 2
    assert told | answered >= {f"chat{n}" for n in range(min(N_CHATS, n_sent))}
    assert most_waiting <= MAX_WAITING
    assert memory_mib <= 200
    assert recovered_s <= 60


def _at_known_speed(world: World) -> None:
    one_at_a_time = asyncio.Lock()

    async def before_token() -> None:
        async with one_at_a_time:
            await asyncio.sleep(_PIECE_S)

    world.server.faults.before_token = before_token


async def _overload(world: World, seconds: float) -> tuple[int, int, float]:
    """How many were sent, how many waited in memory at most, and by how much memory grew."""
    before, n_sent, most = _rss_mib(), 0, 0
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        account = f"chat{n_sent % N_CHATS}"
        address = ChatAddress(platform="console", bot_account="console", chat=account)
        key = str(n_sent)
        await world.chat.post(Said(address=address, account=account, update_key=key, message_key=key, text="Rain?"))
        n_sent += 1
        most = max(most, len(world.cycle.receiving._taken))
        ahead_s = n_sent / (10 * CAPACITY_PER_S) - (time.monotonic() - began)
        await asyncio.sleep(max(0.0, ahead_s))
    return n_sent, most, _rss_mib() - before


def _rss_mib() -> float:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096 / 2**20
