"""The cycle, wired: every stage around one store, one server, one engine and the chat clients."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from claasbot import __version__
from claasbot.domain.access import AccessRules
from claasbot.domain.experience import LearningMode, Trainable
from claasbot.domain.feedback import Reactions
from claasbot.domain.gate import Limits
from claasbot.domain.quiet import QuietHours
from claasbot.domain.retention import RetentionRules
from claasbot.errors import StoreError
from claasbot.logs import prune
from claasbot.ports import ChatClient, InferenceServer, TrainingEngine
from claasbot.services.admin_commands import AdminCommands
from claasbot.services.admitting import Admitting
from claasbot.services.answering import Answering
from claasbot.services.backing_up import Contents, backup
from claasbot.services.canaries import Canaries, Checksum
from claasbot.services.clock import Clock, utc_now
from claasbot.services.commands import Commands
from claasbot.services.compare_commands import CompareCommands
from claasbot.services.comparing import Comparing
from claasbot.services.crowding import Crowding
from claasbot.services.erasing import Erasing
from claasbot.services.exchanges import ChatRules
from claasbot.services.exporting import EXPORTS, Exporting, drop_exports
from claasbot.services.feedback_commands import FeedbackCommands
from claasbot.services.handover import Handover
from claasbot.services.health import Light, Queues, Status, queues, store_light
from claasbot.services.hearing import Hearing
from claasbot.services.learn_commands import LearnCommands
from claasbot.services.learning import Learning
from claasbot.services.leasing import LessonRules
from claasbot.services.linking import Linking
from claasbot.services.listening import Listening
from claasbot.services.platform_modes import PlatformModes
from claasbot.services.promoting import Promoting
from claasbot.services.quotas import Quotas
from claasbot.services.rebuilding import Rebuilding
from claasbot.services.receiving import Receiving
from claasbot.services.retaining import Retaining
from claasbot.services.revoking import Revoking
from claasbot.services.rights_commands import RightsCommands
from claasbot.services.room_commands import RoomCommands
from claasbot.services.serving import Serving
from claasbot.services.snapshots import BackupRules, Snapshots
from claasbot.services.stage import keep_doing
from claasbot.services.steering import Steering
from claasbot.services.telling import Telling
from claasbot.services.unlearn_commands import UnlearnCommands
from claasbot.storage import lessons
from claasbot.storage.store import Store
from claasbot.storage.switches import is_paused

_RESUME_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What the cycle is given: each part real, or one that needs no hardware."""

    store: Store
    server: InferenceServer
    engine: TrainingEngine
    clients: tuple[ChatClient, ...]
    data: Path
    restart_server: Callable[[], Awaitable[None]]
    expected_checksum: Checksum
    lights: Callable[[], Awaitable[tuple[Light, ...]]]
    """How server and trainer stand; the chat clients say it themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleRules:
    """What the host decides about the cycle."""

    chat: ChatRules
    lessons: LessonRules
    limits: Limits
    load_wait_s: float
    trainable: Trainable
    job_deadline_s: float
    access: AccessRules
    modes: Mapping[str, LearningMode] = field(default_factory=dict)
    """What may train, by platform, where it is not everything."""
    reactions: Reactions = field(default_factory=Reactions)
    quiet: QuietHours | None = None
    retention: RetentionRules = field(default_factory=RetentionRules)
    backups: BackupRules = field(default_factory=BackupRules)
    privacy: str = ""
    """The host's own privacy text; empty: ours."""


class Cycle:
    """`run` until cancelled; `settled` waits until nothing is left to do."""

    def __init__(self, outside: Outside, rules: CycleRules, clock: Clock = utc_now) -> None:
        store, server, engine, data = outside.store, outside.server, outside.engine, outside.data
        self.outside, self.rules, self.clock = outside, rules, clock
        self.store, self.server = store, server
        self.is_finishing = False
        self._seen = Queues(inbox=0, lessons=0, outbox=0), False
        by_account = {(client.platform, client.bot_account): client for client in outside.clients}
        self.serving = Serving(store, server, data, load_wait_s=rules.load_wait_s)
        self.answering = Answering(store, server, self.serving, rules.chat, clock)
        modes = PlatformModes(rules.modes)
        self.listening = Listening(store, clock, rules.trainable, modes)
        self.handover = Handover(engine, deadline_s=rules.job_deadline_s)
        self.learning = Learning(store, engine, self.handover, rules.lessons, data, clock, server, modes)
        canaries, rebuilding = Canaries(store, server, outside.expected_checksum), Rebuilding(modes=modes)
        self.promoting = Promoting(store, self.serving, engine, canaries, rebuilding, rules.limits, clock)
        self.erasing = Erasing(
            store,
            self.serving,
            engine,
            data,
            clock,
            outside.restart_server,
            clients=outside.clients,
            stop_answers=self.answering.stop_all,
            backups=rules.backups,
        )
        self.snapshots = Snapshots(store, data, rules.backups, clock)
        self.exporting = Exporting(store, data, clock)
        self.comparing = Comparing(store, server, self.serving, rules.chat)
        self.revoking = Revoking(store, server, self.serving, rebuilding, data, clock)
        self.steering = Steering(store, self.promoting, self.learning, self.revoking, clock)
        no_learning_on = frozenset(platform for platform, mode in rules.modes.items() if mode == "off")
        self.admitting = Admitting(store, by_account, rules.access, no_learning_on, clock)
        self.commands = self._commands()
        hearing = Hearing(store, self.admitting, self.answering, self.listening, self.commands, rules.reactions, clock)
        crowding = Crowding(by_account, clock, rules.chat.max_waiting, rules.chat.max_waiting_each)
        self.receiving = Receiving(store, by_account, self.answering, hearing, crowding, clock)
        self.telling = Telling(store, by_account, clock, rules.quiet)
        self.retaining = Retaining(store, rules.retention, clock, partial(prune, data / "logs"))

    def _commands(self) -> Commands:
        """Every command and button of every module, under one name each."""
        feedback = FeedbackCommands(self.store, self.listening)
        compare = CompareCommands(self.store, self.comparing, self.answering.exchanges, self.clock)
        room = RoomCommands(self.store)
        rights = RightsCommands(self.store, self.erasing, self.exporting, self.clock, privacy=self.rules.privacy)
        linking = Linking(self.store, self.erasing, self.clock)
        learn = LearnCommands(self.store, self.learning.train_now)
        unlearn = UnlearnCommands(self.store, self.revoking)
        admin = AdminCommands(self.store, self.admitting, self.steering, self.status, self.clock)
        return Commands(
            self.store,
            self.answering,
            self.promoting,
            self.clock,
            quotas=Quotas(
                answers_per_day=self.rules.chat.answers_per_day,
                lessons_per_day=self.rules.lessons.rules.lessons_per_day,
            ),
            more=feedback.handlers()
            | rights.handlers()
            | compare.handlers()
            | room.handlers()
            | linking.handlers()
            | learn.handlers()
            | unlearn.handlers()
            | admin.handlers(),
            more_buttons=feedback.buttons()
            | rights.buttons()
            | compare.buttons()
            | room.buttons()
            | linking.buttons()
            | unlearn.buttons(),
        )

    async def status(self) -> Status:
        """For the dashboard and /health."""
        clients = tuple(
            Light(name=self._light_name(client), state=client.health().state, detail=client.health().detail)
            for client in self.outside.clients
            if client.platform not in self.rules.access.at_home
        )
        waiting, paused = await self._last_look()
        return Status(
            lights=(
                *await self.outside.lights(),
                *clients,
                store_light(self.store.trouble or self.snapshots.trouble),
                *([Light(name="bot", state="down", detail="it is being stopped")] if self.is_finishing else []),
            ),
            queues=waiting,
            is_learning=self.rules.trainable.is_on and not paused,
            version=__version__,
        )

    async def _last_look(self) -> tuple[Queues, bool]:
        """What waits and whether lessons are paused, as last read: a store in trouble has a light and no error page."""
        with suppress(StoreError):
            self._seen = await self.store.run(lambda db: (queues(db), is_paused(db)))
        return self._seen

    def _light_name(self, client: ChatClient) -> str:
        """With the account, where the bot has several on a platform."""
        is_one_of_many = [one.platform for one in self.outside.clients].count(client.platform) > 1
        return f"{client.platform} {client.bot_account}" if is_one_of_many else client.platform

    async def run(self) -> None:
        """The stages side by side, until cancelled. A crash anywhere resumes from rows."""
        jobs = await self.store.run(lessons.open_jobs, datetime.max.replace(tzinfo=UTC))
        await self.outside.engine.discard_all_but([job.job_id for job in jobs])
        await asyncio.to_thread(drop_exports, self.outside.data / EXPORTS)
        await self.erasing.forget_who_returned()
        async with asyncio.TaskGroup() as group:
            group.create_task(keep_doing("erasing", self._resume_erasures, asyncio.Event()))
            group.create_task(self.snapshots.run())
            for stage in (self.receiving, self.learning, self.promoting, self.revoking, self.telling, self.retaining):
                group.create_task(stage.run())
            for client in self.outside.clients:
                name, runs = f"{client.platform} {client.bot_account}", partial(self._receive_from, client)
                group.create_task(keep_doing(name, runs, asyncio.Event(), after_failure_s=_RESUME_S))

    async def _receive_from(self, client: ChatClient) -> float:
        """A platform that fails takes nobody else down; it is tried again after a while."""
        await client.run(self.receiving.accept)
        return _RESUME_S

    async def settled(self, *, within_s: float = 120.0) -> None:
        """Wait until nothing is received, queued, leased, trained or untold. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while not await self._is_settled():  # noqa: ASYNC110 - rows are the truth, and nobody signals an empty table
                await asyncio.sleep(0.02)

    async def is_learning(self) -> bool:
        """Neither switched off by the host nor paused by an admin."""
        return self.rules.trainable.is_on and not await self.store.run(is_paused)

    async def finish(self, within_s: float) -> None:
        """Before the end: answers and notices that were begun are ended, and nothing else is begun."""
        self.is_finishing = True
        await asyncio.gather(self.receiving.finish(within_s), self.telling.finish(within_s))

    async def backup(self, to: Path) -> Contents:
        return await backup(self.store, self.outside.data, to, self.clock)

    async def close(self) -> None:
        await self.serving.close()

    async def _is_settled(self) -> bool:
        waiting = await self.store.run(queues)
        n_lessons = waiting.lessons if await self.is_learning() else 0
        return waiting.inbox + n_lessons + waiting.outbox == 0 and self.receiving.is_idle()

    async def _resume_erasures(self) -> float:
        await self.erasing.resume()
        return _RESUME_S
