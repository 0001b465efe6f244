"""Everybody forgotten, with a receipt. Erasure removes the influence too: the weights go."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from sqlite_utils import Database

from claasbot import adapter_files
from claasbot.errors import ClaasbotError, ServerError
from claasbot.ports import ChatClient, TrainingEngine
from claasbot.services.burying import StillHeld, buried, bury, still_held
from claasbot.services.clock import Clock
from claasbot.services.exporting import EXPORTS, drop_exports
from claasbot.services.serving import Serving
from claasbot.services.snapshots import BackupRules
from claasbot.storage import accounts, erasure, people, versions
from claasbot.storage.accounts import Account
from claasbot.storage.erasure import Erasure
from claasbot.storage.rows import time_of
from claasbot.storage.store import Store

log = logging.getLogger(__name__)

_WORDS = {
    "turn": ("message", "messages"),
    "completion": ("answer", "answers"),
    "conversation": ("conversation", "conversations"),
    "feedback_event": ("piece of feedback", "pieces of feedback"),
    "job": ("lesson", "lessons"),
    "adapter_version": ("adapter version", "adapter versions"),
    "weights": ("weight file", "weight files"),
    "comparison": ("comparison", "comparisons"),
    "account": ("account", "accounts"),
}
"""What the receipt calls the rows of a table, one and many. Tables that are not here hold nothing that people know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What the person keeps. The store keeps the number, the times and the counts, and not whose they were."""

    number: str
    done_at: datetime
    counts: dict[str, int]
    """In people's words: `messages`, `weight file`."""
    backups: tuple[StillHeld, ...] = ()


class Erasing:
    """The way out, for people and for what was learned from them."""

    def __init__(
        self,
        store: Store,
        serving: Serving,
        engine: TrainingEngine,
        data: Path,
        clock: Clock,
        restart_server: Callable[[], Awaitable[None]],
        *,
        clients: Sequence[ChatClient] = (),
        stop_answers: Callable[[int], None] = lambda person_id: None,
        backups: BackupRules | None = None,
    ) -> None:
        """`stop_answers`: to a person, wherever they are being written."""
        self._store = store
        self._serving = serving
        self._engine = engine
        self._data = data
        self._clock = clock
        self._restart_server = restart_server
        self._clients = clients
        self._stop_answers = stop_answers
        self._backups = backups
        self._one_at_a_time = asyncio.Lock()

    async def forget(self, person_id: int) -> Receipt:
        """Delete everything of a person. What cannot go now goes as soon as it can; then this raises.

        Order: block the person, end their jobs, wait for running answers, unload, drop the worker's copies, delete the
        folder (a server dies if a folder vanishes that it may still read), then the rows.
        """
        await self._store.run(people.person, person_id)
        asked = await self._store.run(self._ask, person_id)
        self._stop_answers(person_id)
        await self._finish(asked.erasure_id)  # or the stage did, in the moment between
        receipt = await self._store.run(_receipt, asked.receipt)
        return await asyncio.to_thread(self._with_backups, receipt, asked)

    def _ask(self, db: Database, person_id: int) -> Erasure:
        return erasure.ask(db, person_id, f"adapters/p{person_id}", self._clock())

    async def resume(self) -> None:
        """Finish what a crash interrupted, or what waited for a restart of the server; each by itself."""
        for erasure_id in await self._store.run(erasure.unfinished):
            if self._one_at_a_time.locked():
                return  # the person who asked is waiting for this one already
            try:
                await self._finish(erasure_id)
            except ClaasbotError as error:
                log.warning("erasure %d goes on later: %s", erasure_id, error)
            except Exception:  # rows that nobody foresaw, or the disk: somebody else waits behind this one
                log.exception("erasure %d failed and is tried again", erasure_id)

    async def forget_who_returned(self) -> None:
        """A backup that was put back is older than some erasures: they are asked again, before anybody is answered.

        Raises BadInput when the list of them cannot be read.
        """
        they = await asyncio.to_thread(buried, self._data)
        for person_id in await self._store.run(erasure.returned, they):
            asked = await self._store.run(self._ask, person_id)
            log.warning("p%d was forgotten, and a backup brought them back: erasure %d", person_id, asked.erasure_id)

    async def _finish(self, erasure_id: int) -> None:
        async with self._one_at_a_time:
            asked = await self._end_influence(erasure_id)
            if asked is None:
                return
            them = await self._store.run(erasure.tombstones, erasure_id)
            kept_beside = [self._data] if self._backups is None else [self._data, self._data / self._backups.folder]
            await asyncio.to_thread(bury, kept_beside, them)
            known_as = await self._store.run(accounts.of_person, asked.person_id)
            n_weights = await asyncio.to_thread(self._remove_files, asked)
            await self._store.run(self._delete_rows, asked, n_weights)
            self._forget_in_memory(known_as)
            log.info("erasure %d is done, receipt %s", erasure_id, asked.receipt)

    def _remove_files(self, asked: Erasure) -> int:
        """How many weight files there were."""
        folder = self._data / asked.folder
        n_weights = len(list(folder.rglob(adapter_files.WEIGHTS))) if folder.exists() else 0
        adapter_files.remove(folder)
        drop_exports(self._data / EXPORTS, asked.person_id)
        return n_weights

    def _delete_rows(self, db: Database, asked: Erasure, n_weights: int) -> None:
        counts = _in_words(erasure.finish(db, asked, self._clock()), n_weights)
        erasure.keep_receipt(db, asked.erasure_id, counts)

    def _forget_in_memory(self, known_as: list[Account]) -> None:
        for client in self._clients:
            for account in known_as:
                if account.platform == client.platform:
                    client.forget(account.account)

    def _with_backups(self, receipt: Receipt, asked: Erasure) -> Receipt:
        if self._backups is None or not asked.person_made_at:
            return receipt
        rules, made_at = self._backups, time_of(asked.person_made_at)
        found = still_held(self._data, self._data / rules.folder, made_at, days=rules.days)
        return replace(receipt, backups=tuple(found))

    async def _end_influence(self, erasure_id: int) -> Erasure | None:
        """Return when no engine works for the person and no server holds a copy: until a look finds nothing new."""
        done = None
        while (found := await self._store.run(erasure.collect, erasure_id)) != done:
            if found is None:
                return None
            for job_id in found.job_ids:
                await self._engine.discard(job_id)
            if found.server_names:
                await self._leave_server(found)
            done = found
        return done

    async def _leave_server(self, asked: Erasure) -> None:
        """Return when no copy is left in the worker. Raises when that needs a restart that we cannot make."""
        if asked.restart_witness is None:
            if await self._serving.forget(asked.server_names):
                return
        else:
            await self._serving.let_go(asked.server_names)
            if not await self._serving.lists(asked.restart_witness):
                return
        try:
            await self._restart_server()
        except ServerError:
            if not (await self._serving.info()).forgets_adapters:  # else it was busy, and is asked again
                leaving = await self._store.run(versions.of_person, asked.person_id)
                witness = await self._serving.leave_witness(leaving)
                await self._store.run(erasure.leave_witness, asked.erasure_id, witness)
            raise


def _receipt(db: Database, number: str) -> Receipt:
    row = erasure.receipt(db, number)
    return Receipt(number=number, done_at=time_of(row["done_at"]), counts=json.loads(row["counts_json"]))


def _in_words(counts: dict[str, int], n_weights: int) -> dict[str, int]:
    n_messages = max(0, counts["turn"] - counts["completion"])  # an answer is a turn too
    found = {**counts, "turn": n_messages, "weights": n_weights}
    return {words[found[table] > 1]: found[table] for table, words in _WORDS.items() if found.get(table)}
