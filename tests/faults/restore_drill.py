"""`python -m tests.faults.restore_drill --people 1000`: how long a backup, a restore and a start take (R-26's RTO).

A made-up bot: each person has agreed, talked and been taught once, on the dry-run engine, whose versions are small (36
KiB). Real weights take as much longer as a disk takes to copy and to read them. Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from sqlite_utils import Database

from claasbot import adapter_files
from claasbot.data_folder import DataFolder
from claasbot.services.backing_up import restore
from claasbot.services.clock import utc_now
from claasbot.services.snapshots import BackupRules, Snapshots
from claasbot.settings import Settings
from claasbot.storage.rows import insert, one, rows
from claasbot.storage.store import Store
from tests.services.world import running_world

_CURRENT = """
SELECT folder, weights_sha256 FROM person JOIN adapter_version AS version ON version.id = current_version_id
"""


async def drill(people: int, turns: int, root: Path) -> dict[str, object]:
    """Make the bot, back it up twice, restore it elsewhere, start it there, compare every current version."""
    data, anew = DataFolder(root=root / "data"), DataFolder(root=root / "anew")
    data.make()
    anew.make()
    await _populate(data, people, turns)
    store = Store(data.database)
    await store.open()
    snapshots = Snapshots(store, data.root, BackupRules(keep=9), utc_now)
    took: dict[str, float] = {}
    now = utc_now()
    with _timed(took, "backup_s"):
        first = await snapshots.make(now)
    with _timed(took, "next_backup_s"):
        await snapshots.make(now + timedelta(minutes=1))
    n_rows = (await store.run(one, "SELECT count(*) AS n FROM turn")) or {"n": 0}
    with _timed(took, "close_s"):
        await store.close()
    with _timed(took, "restore_s"):
        contents = await asyncio.to_thread(restore, first, anew.root)
    with _timed(took, "checked_start_s"):
        copy = Store(anew.database)
        await copy.open()
    n_same = await _n_same(copy, anew)
    await copy.close()
    again = Store(anew.database)
    with _timed(took, "sealed_start_s"):
        await again.open()
    await again.close()
    return {
        "people": people, "turns": n_rows["n"], "database_bytes": data.database.stat().st_size,
        "versions": len(contents.folders), "same_hashes": n_same, **{name: round(s, 2) for name, s in took.items()},
    }  # fmt: skip


async def _populate(data: DataFolder, people: int, turns: int) -> None:
    store = Store(data.database)
    await store.open()
    # The scripted server says its name: with a long one, little of the answer fits the gate's sample.
    settings = Settings(learning={"debounce_s": 0.0}, gate={"min_explanation_words": 0})
    async with running_world(data.root, settings, store) as world:
        for n in range(people):
            await world.taught(f"person{n}")
        await world.cycle.settled()
    await store.run(_talk, turns)
    await store.close()


def _talk(db: Database, turns: int) -> None:
    """A history for everybody: what was said, in rows as long as real ones."""
    for conversation in rows(db, "SELECT id FROM conversation"):
        for n in range(turns):
            insert(
                db, "turn", conversation_id=conversation["id"], role="user", text=f"{n} " * 200, created_at="2026"
            )  # fmt: skip


async def _n_same(store: Store, data: DataFolder) -> int:
    found = await store.run(rows, _CURRENT)
    return sum(adapter_files.verify(data.root / row["folder"]).weights_sha256 == row["weights_sha256"] for row in found)


class _timed:
    def __init__(self, took: dict[str, float], name: str) -> None:
        self._took, self._name = took, name

    def __enter__(self) -> None:
        os.sync()  # what earlier steps wrote is not this one's time
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._took[self._name] = time.perf_counter() - self._began


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.restore_drill", description=__doc__)
    parser.add_argument("--people", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=200, help="turns of each person besides the lesson")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="claasbot-drill-") as folder:
        print(json.dumps(asyncio.run(drill(chosen.people, chosen.turns, Path(folder)))))


if __name__ == "__main__":
    main()
