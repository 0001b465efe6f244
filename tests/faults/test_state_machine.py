"""R-29: whatever people, admins and machines do in whatever order, the promises hold after every action.

The stages are stepped one at a time, so that an edit, a crash or an undo can come between any two of them. The model
knows only what was acknowledged: which feedback, of whom, and what each person took back.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from claasbot import adapter_files
from claasbot.app import cycle_rules
from claasbot.chat.console import ConsoleChat
from claasbot.domain.adapter import AdapterVersion
from claasbot.domain.conversation import Deleted, Edited, Said
from claasbot.engines.dry_run import DryRunEngine, EngineFaults
from claasbot.errors import ClaasbotError
from claasbot.inference.scripted import ScriptedServer, toy_logprobs
from claasbot.services.cycle import Cycle, Outside
from claasbot.services.health import Light
from claasbot.settings import Settings
from claasbot.storage.rows import rows
from claasbot.storage.store import Store
from tests.faults.conftest import IS_FULL, scaled

N_RUNS, N_ACTIONS = scaled(2_000, 100), scaled(50, 20)
PEOPLE = ("ada", "bob", "eve")
WISHES = ("Shorter.", "In verse.", "In French.")
SETTINGS = Settings(learning={"debounce_s": 0.0, "max_experiences": 4}, chat={"max_tokens": 64})
T = TypeVar("T")


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 20, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(milliseconds=1)
        return self.now


async def _no_lights() -> tuple[Light, ...]:
    return ()


class Life(RuleBasedStateMachine):
    """Three people, one bot. The model: which messages and which feedback of whom were acknowledged."""

    totals: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.data = Path(tempfile.mkdtemp(prefix="claasbot-life-"))
        self.clock, self.store = Clock(), Store(None)
        self.chat, self.server, self.engine = ConsoleChat(), ScriptedServer(), DryRunEngine(toy_logprobs)
        self.acknowledged: dict[int, str] = {}
        self.said: dict[str, str] = {}
        self.trained: dict[str, list[int]] = {}
        self.run(self.store.open())
        self.begin()

    # --- the bot, and its end

    def run(self, what: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(what)

    def begin(self) -> None:
        outside = Outside(
            store=self.store, server=self.server, engine=self.engine, clients=(self.chat,), data=self.data,
            restart_server=self._restart_server, expected_checksum=self._no_checksum, lights=_no_lights,
        )  # fmt: skip
        self.cycle = Cycle(outside, cycle_rules(SETTINGS), self.clock)
        self.tasks = [
            self.loop.create_task(self.cycle.receiving.run()),
            self.loop.create_task(self.chat.run(self.cycle.receiving.accept)),
        ]
        self.run(asyncio.sleep(0))

    def end(self) -> None:
        """As kill -9 does: nothing is tidied up."""
        for task in self.tasks:
            task.cancel()
        self.run(_gathered(self.tasks))
        self.run(self.cycle.serving.close())

    async def _restart_server(self) -> None:
        self.server.restart()

    async def _no_checksum(self, version: AdapterVersion) -> str | None:
        return None

    def teardown(self) -> None:
        for table in ("experience", "job"):
            for row in self._found(f"SELECT state, count(*) AS n FROM {table} GROUP BY state"):
                self.totals[f"{table}s {row['state']}"] += row["n"]
        self.end()
        self.run(self.store.close())
        self.loop.close()
        shutil.rmtree(self.data)

    # --- what people do

    async def _idle(self) -> None:
        async with asyncio.timeout(30):
            while not self.server.faults.is_down:
                waiting = await self.store.run(rows, "SELECT id FROM inbox WHERE handled_at IS NULL")
                if not waiting and self.cycle.receiving.is_idle():
                    return
                await asyncio.sleep(0)

    @initialize()
    def two_of_them_agree(self) -> None:
        for account in PEOPLE[:2]:
            self.run(self.chat.command(account, "optin"))

    @precondition(lambda self: not self.server.faults.is_down)
    @rule(account=st.sampled_from(PEOPLE[:2]), wish=st.sampled_from(WISHES), n=st.integers(1, 3))
    def teaches(self, account: str, wish: str, n: int) -> None:
        for _ in range(n):
            self.asks(account)
            before = self._feedback_ids()
            self.run(self.chat.command(account, "feedback", wish, str(self._of(account)[-1]["id"])))
            self.acknowledged |= dict.fromkeys(self._feedback_ids() - before, account)

    @rule(account=st.sampled_from(PEOPLE))
    def asks(self, account: str) -> None:
        n = len(self.said) + 1
        key = f"q{n}"
        self.said[key] = account
        said = Said(
            address=self.chat.chat_of(account), account=account, update_key=key, text=f"Number {n}?", message_key=key
        )
        self.run(self.chat.post(said))
        self.run(self._idle())

    @rule(account=st.sampled_from(PEOPLE), agrees=st.booleans())
    def decides_about_learning(self, account: str, agrees: bool) -> None:
        self.run(self.chat.command(account, "optin" if agrees else "optout"))

    def _of(self, account: str) -> list[dict[str, Any]]:
        sql = (
            "SELECT completion.id FROM completion JOIN account USING (person_id)"
            " WHERE account.account = ? AND message_key IS NOT NULL ORDER BY completion.id"
        )
        return [dict(row) for row in self.run(self.store.run(rows, sql, account))]

    @rule(account=st.sampled_from(PEOPLE), whose=st.sampled_from(PEOPLE), k=st.integers(0, 3), data=st.data())
    def gives_feedback(self, account: str, whose: str, k: int, data: st.DataObject) -> None:
        """Mostly on an own answer, sometimes on somebody else's."""
        answers = self._of(account if k else whose)
        if not answers:
            return
        answer = data.draw(st.sampled_from(answers))["id"]
        kind = data.draw(st.sampled_from(("feedback", "correct", "👍", "👎", "take back")))
        before = self._feedback_ids()
        if kind in ("feedback", "correct"):
            self.run(self.chat.command(account, kind, data.draw(st.sampled_from(WISHES)), str(answer)))
        else:
            self.run(
                self.chat.react(
                    account, str(answer), "👎" if kind == "take back" else kind, removed=kind == "take back"
                )
            )
            self.run(self._idle())
        self.acknowledged |= dict.fromkeys(self._feedback_ids() - before, account)

    def _feedback_ids(self) -> set[int]:
        return {row["id"] for row in self.run(self.store.run(rows, "SELECT id FROM feedback_event"))}

    @rule(account=st.sampled_from(PEOPLE), deletes=st.booleans(), data=st.data())
    def changes_a_message(self, account: str, deletes: bool, data: st.DataObject) -> None:
        theirs = [key for key, who in self.said.items() if who == account]
        if not theirs:
            return
        key = data.draw(st.sampled_from(theirs))
        where = {"address": self.chat.chat_of(account), "account": account, "message_key": key}
        event = Deleted(**where, update_key=f"d{self.clock.now}")
        edit = Edited(**where, update_key=f"e{self.clock.now}", text=f"Rather {key}?")
        self.run(self.chat.post(event if deletes else edit))
        self.run(self._idle())

    @rule(account=st.sampled_from(PEOPLE))
    def undoes(self, account: str) -> None:
        self.run(self.chat.command(account, "undo"))

    @rule(account=st.sampled_from(PEOPLE), n=st.integers(1, 4))
    def takes_one_lesson_back(self, account: str, n: int) -> None:
        self.run(self.chat.command(account, "unlearn", str(n)))
        with suppress(ClaasbotError):
            self.run(self.chat.press(account, f"unlearn:yes:{n}"))

    @precondition(lambda self: not self.server.faults.is_down)
    @rule(account=st.sampled_from(PEOPLE))
    def is_forgotten(self, account: str) -> None:
        person = self.run(self.store.run(rows, "SELECT person_id FROM account WHERE account = ?", account))
        self.run(self.chat.press(account, "forget:yes"))
        self.run(self._idle())
        if person:
            self.acknowledged = {key: who for key, who in self.acknowledged.items() if who != account}
            self.said = {key: "" if who == account else who for key, who in self.said.items()}

    # --- what machines do

    @rule(n=st.integers(1, 3))
    def learns(self, n: int) -> None:
        for _ in range(n):
            self._step(self.cycle.learning.step)

    @rule()
    def judges(self) -> None:
        self._step(self.cycle.promoting.step)

    @rule(n=st.integers(1, 8))
    def a_while_passes(self, n: int) -> None:
        for _ in range(n):
            self.clock.now += timedelta(seconds=61)
            self.learns(2)
            self.judges()

    @rule(account=st.sampled_from(PEOPLE[:2]), wish=st.sampled_from(WISHES), n=st.integers(1, 3), both=st.booleans())
    def learns_a_lesson(self, account: str, wish: str, n: int, both: bool) -> None:
        for who in PEOPLE[:2] if both else (account,):
            if not self.server.faults.is_down:
                self.teaches(who, wish, n)
        self.a_while_passes(2)

    def _step(self, step: Any) -> None:
        with suppress(ClaasbotError):
            self.run(asyncio.wait_for(step(), 30))

    @rule()
    def dies_within_a_lesson(self) -> None:
        """The bot is killed while the engine is at work, or just after."""

        async def killed() -> None:
            self.engine.faults.before_step = asyncio.Event().wait
            task = asyncio.create_task(self.cycle.learning.step())
            for _ in range(30):
                await asyncio.sleep(0)
            task.cancel()
            await _gathered([task])
            self.engine.faults.before_step = EngineFaults().before_step

        self.run(killed())
        self.restarts()

    @rule()
    def restarts(self) -> None:
        self.end()
        self.totals["kills"] += 1
        self.begin()

    @rule(n=st.integers(0, 8), is_finite=st.booleans(), drift=st.sampled_from((0.0, 9.0)), recovers=st.booleans())
    def trainer_has_a_bad_day(self, n: int, is_finite: bool, drift: float, recovers: bool) -> None:
        faults = self.engine.faults
        faults.n_deaths, faults.is_finite, faults.drift_nats = n, is_finite, drift
        self.learns_a_lesson("ada", WISHES[0], 2, both=False)
        if recovers:
            faults.n_deaths, faults.is_finite, faults.drift_nats = 0, True, 0.0

    @rule(account=st.sampled_from(PEOPLE), comes_back=st.sampled_from((True, True, True, False)))
    def server_goes_down(self, account: str, comes_back: bool) -> None:
        self.server.faults.is_down = True
        self.asks(account)
        self.learns(1)
        self.judges()
        if comes_back:
            self.server_comes_back()

    @precondition(lambda self: self.server.faults.is_down)
    @rule()
    def server_comes_back(self) -> None:
        self.server.restart()
        self.run(self._idle())

    @rule(seconds=st.sampled_from((-86_400, -3_600, -1, 1, 61, 3_600, 86_400)))
    def clock_jumps(self, seconds: int) -> None:
        self.clock.now += timedelta(seconds=seconds)

    # --- what must hold

    @invariant()
    def every_acknowledged_row_is_in_exactly_one_state(self) -> None:
        found = self.run(
            self.store.run(
                rows,
                "SELECT feedback_event.id, feedback_event.kind, account.account, count(experience.id) AS n FROM"
                " feedback_event JOIN account USING (person_id) LEFT JOIN experience"
                " ON experience.feedback_event_id = feedback_event.id GROUP BY feedback_event.id",
            )
        )
        there = {row["id"]: row["account"] for row in found}
        self.totals["lost"] += len(self.acknowledged.keys() - there.keys())
        self.totals["doubled"] += sum(row["n"] > 1 for row in found)
        assert self.acknowledged.items() <= there.items()
        assert all(row["n"] <= 1 for row in found)
        assert all(row["n"] == 1 for row in found if row["kind"] in ("text", "correction"))

    @invariant()
    def what_is_leased_belongs_to_an_open_job_and_a_candidate_to_a_trained_one(self) -> None:
        assert not self._found(
            "SELECT experience.id FROM experience LEFT JOIN job ON job.id = experience.job_id"
            " WHERE experience.state = 'leased' AND coalesce(job.state, '') NOT IN ('leased', 'trained')"
        )
        assert not self._found(
            "SELECT version.id FROM adapter_version AS version JOIN job ON job.id = version.job_id"
            " WHERE (version.state = 'candidate') != (job.state = 'trained')"
        )

    @invariant()
    def a_row_was_consumed_by_a_version_that_was_promoted_and_is_its_own_persons(self) -> None:
        assert not self._found(
            "SELECT experience.id FROM experience JOIN adapter_version AS version ON version.id = consumed_by"
            " WHERE version.person_id != experience.person_id"
            " OR experience.state = 'consumed' AND version.state NOT IN ('promoted', 'retired')"
        )
        assert not self._found(
            "SELECT experience.id FROM experience JOIN job ON job.id = experience.job_id"
            " WHERE job.person_id != experience.person_id"
        )

    @invariant()
    def each_pointer_names_a_promoted_version_whose_line_holds_each_lesson_once_and_whose_files_are_whole(self) -> None:
        for row in self._found(
            "SELECT person.id, version.state, version.folder, version.id AS version_id FROM person"
            " JOIN adapter_version AS version ON version.id = person.current_version_id"
        ):
            assert row["state"] == "promoted"
            adapter_files.verify(self.data / row["folder"])
            line = self._found(
                "WITH RECURSIVE line(id, parent_id) AS (SELECT id, parent_id FROM adapter_version WHERE id = ?"
                " UNION ALL SELECT version.id, version.parent_id FROM adapter_version AS version"
                " JOIN line ON version.id = line.parent_id) SELECT id FROM line",
                row["version_id"],
            )
            standing = self._found(
                "SELECT id, consumed_by FROM experience WHERE person_id = ? AND state = 'consumed'", row["id"]
            )
            assert {one["consumed_by"] for one in standing} <= {one["id"] for one in line}
        assert not self._found(
            "SELECT id FROM adapter_version WHERE state = 'promoted'"
            " AND id NOT IN (SELECT current_version_id FROM person WHERE current_version_id IS NOT NULL)"
        )

    @invariant()
    def each_lesson_taught_one_person_and_no_line_learned_it_twice(self) -> None:
        for job in self.engine.seen.ran:
            new = (row.experience_id for lesson in job.lessons for row in lesson.experiences)
            self.trained[job.version_name] = sorted(new)
        self.engine.seen.ran.clear()
        owners = {row["id"]: row["person_id"] for row in self._found("SELECT id, person_id FROM experience")}
        for name, ids in self.trained.items():
            assert {owners[number] for number in ids if number in owners} <= {int(name[1:].partition(".")[0])}
        for row in self._found("SELECT id, current_version_id FROM person WHERE current_version_id IS NOT NULL"):
            learned = Counter[int]()
            version_id = row["current_version_id"]
            while version_id is not None:
                [version] = self._found("SELECT n, parent_id FROM adapter_version WHERE id = ?", version_id)
                learned.update(self.trained[f"p{row['id']}.v{version['n']}"])
                version_id = version["parent_id"]
            doubled = [number for number, n in learned.items() if n > 1]
            self.totals["doubled"] += len(doubled)
            assert not doubled

    def _found(self, sql: str, *values: object) -> list[Any]:
        return self.run(self.store.run(rows, sql, *values))


async def _gathered(tasks: list[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


def test_the_promises_hold_after_every_action(totals: Counter[str]) -> None:
    Life.totals = totals
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=N_RUNS,
            stateful_step_count=N_ACTIONS,
            deadline=None,
            derandomize=not IS_FULL,
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(f"{N_RUNS} runs of {N_ACTIONS} actions: {dict(totals)}")
    for reached in ("experiences consumed", "experiences withdrawn", "jobs promoted"):
        assert totals[reached] > 0, "these actions came to nothing"
    for reached in ("experiences rejected", "experiences quarantined", "jobs rejected", "jobs dead", "jobs abandoned"):
        assert totals[reached] > 0 or not IS_FULL
