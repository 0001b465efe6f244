"""The composition root. Concrete implementations are named here, in `machines` and in `platforms`, nowhere else.

`running` brings everything up in order and takes it down again, whatever happens between:
data folder, store, base model, server and trainer side by side, the cycle, the web.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from claasbot.base_model import find_model
from claasbot.data_folder import DataFolder
from claasbot.domain.experience import Trainable
from claasbot.domain.quiet import quiet_hours
from claasbot.errors import SettingsError
from claasbot.inference.launch import check_port
from claasbot.logs import Failures
from claasbot.machines import Machines, Say, StartMachines, base_model_name, real_machines, wants_embedded_model
from claasbot.platforms import bot_accounts, platforms
from claasbot.ports import ChatClient, InferenceServer, TrainingEngine
from claasbot.services.clock import utc_now
from claasbot.services.cycle import Cycle, CycleRules, Outside
from claasbot.services.exchanges import ChatRules
from claasbot.services.health import Light
from claasbot.services.keeping_errors import KeepingErrors
from claasbot.services.leasing import LessonRules
from claasbot.services.snapshots import BackupRules
from claasbot.settings import Settings, WebSettings, shown_values
from claasbot.storage import keys, settings_seen
from claasbot.storage.store import Store
from claasbot.web.parts import Webhook, WebParts
from claasbot.web.playground import Playground
from claasbot.web.server import WebServer, check_web_port
from claasbot.web.sign_in import new_sign_in_link
from claasbot.web.tls import refuse_plain_http, server_context

AT_HOME = frozenset({"playground", "console"})
"""Platforms whose people have signed in or sit at the machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bot:
    """Everything that runs."""

    cycle: Cycle
    store: Store
    server: InferenceServer
    engine: TrainingEngine
    url: str
    """Of the dashboard."""

    async def sign_in_link(self) -> str:
        return await new_sign_in_link(self.store, utc_now, self.url)


@asynccontextmanager
async def running(
    settings: Settings,
    say: Say,
    *,
    extra_clients: tuple[ChatClient, ...] = (),
    start_machines: StartMachines = real_machines,
) -> AsyncIterator[Bot]:
    """The whole bot, up and answering; everything is down again when the block ends."""
    data = DataFolder(root=settings.data.absolute())
    rules = cycle_rules(settings)
    if not wants_embedded_model(settings):
        find_model(base_model_name(settings))
    async with AsyncExitStack() as stack:
        stack.enter_context(data.lock())
        _check_early(settings)
        store = Store(data.database, key=store_key(settings))
        await store.open()
        stack.push_async_callback(store.close)
        await store.run(settings_seen.note, shown_values(settings), "host:settings", utc_now())
        keeping = KeepingErrors(store, _failures(stack), utc_now)
        stack.push_async_callback(keeping.finish)
        await stack.enter_async_context(_task(keeping.run()))
        machines = await start_machines(settings, data, stack, say)
        here = (Playground("playground", "main"), Playground("console", "main"))
        elsewhere = platforms(settings, data, store)
        cycle = _cycle(rules, data, store, machines, (*here, *elsewhere.clients, *extra_clients))
        stack.push_async_callback(cycle.close)
        await stack.enter_async_context(_task(cycle.run()))
        web = WebServer(
            _web_parts(cycle, *here, elsewhere.webhooks, settings.web),
            host=settings.web.host,
            port=settings.web.port,
            socket_path=data.socket,
            tls=server_context(settings.web.certificate, settings.web.certificate_key),
        )
        await web.start()
        stack.push_async_callback(web.stop)
        yield Bot(cycle=cycle, store=store, server=machines.server, engine=machines.engine, url=web.url)


def _failures(stack: AsyncExitStack) -> Failures:
    """Whatever is logged with an exception from now on, until the stack ends."""
    failures = Failures()
    logging.getLogger().addHandler(failures)
    stack.callback(logging.getLogger().removeHandler, failures)
    return failures


def _cycle(
    rules: CycleRules, data: DataFolder, store: Store, machines: Machines, clients: tuple[ChatClient, ...]
) -> Cycle:
    async def lights() -> tuple[Light, ...]:
        return await machines.lights(cycle.handover.is_lent)

    cycle = Cycle(
        Outside(
            store=store,
            server=machines.server,
            engine=machines.engine,
            clients=clients,
            data=data.root,
            restart_server=machines.restart_server,
            expected_checksum=machines.expected_checksum,
            lights=lights,
        ),
        rules,
    )
    return cycle


def _check_early(settings: Settings) -> None:
    """Before anything that takes long. Raises PortInUse, or SettingsError for a token that is none."""
    for one in bot_accounts(settings):
        if one.troubles:
            raise SettingsError(one.troubles[0])
    check_web_port(settings.web.host, settings.web.port)
    if server_context(settings.web.certificate, settings.web.certificate_key) is None:
        refuse_plain_http(settings.web.host, is_allowed=settings.web.allow_plain_http)
    if not settings.server.url:
        check_port(settings.server.port)


def cycle_rules(settings: Settings) -> CycleRules:
    learning = settings.learning
    return CycleRules(
        chat=ChatRules(
            system_prompt=settings.chat.system_prompt,
            sampling=settings.chat.sampling(),
            template_options={"enable_thinking": settings.chat.enable_thinking},
            max_message_chars=settings.chat.max_message_chars,
            group_idle=timedelta(minutes=settings.chat.group_idle_minutes),
            answers_per_day=settings.chat.answers_per_day,
            max_waiting=settings.chat.max_waiting,
            max_waiting_each=settings.chat.max_waiting_each,
            has_buttons=settings.chat.has_buttons,
        ),
        lessons=LessonRules(
            rules=settings.rules(),
            recipe=settings.recipe.recipe(),
            max_experiences=learning.max_experiences,
            max_standing=learning.max_standing,
            n_earlier=learning.n_earlier,
            max_attempts=learning.max_attempts,
        ),
        limits=settings.gate.limits(),
        load_wait_s=settings.chat.load_wait_s,
        trainable=Trainable(
            is_on=learning.is_on, max_staleness=learning.max_staleness, max_tokens=settings.recipe.max_tokens
        ),
        job_deadline_s=settings.trainer.job_deadline_s,
        access=settings.access.rules(AT_HOME),
        modes={"telegram": settings.telegram.learning, "discord": settings.discord.learning},
        reactions=settings.chat.reactions(),
        quiet=quiet_hours(settings.chat.quiet_hours),
        retention=settings.retention.rules(),
        backups=BackupRules(
            folder=settings.backup.folder,
            every=timedelta(minutes=settings.backup.every_minutes),
            keep=settings.backup.keep,
            days=settings.backup.days,
        ),
        privacy=_privacy(settings),
    )


def store_key(settings: Settings) -> str:
    """Of the encrypted database; empty where it is not. Raises StoreError for a key that is none."""
    if settings.store.key_file:
        return keys.read(Path(settings.store.key_file))
    key = settings.store.key.get_secret_value()
    return keys.checked(key, "store.key") if key else ""


def _privacy(settings: Settings) -> str:
    """The host's own words. Raises SettingsError for a file that cannot be read."""
    if not settings.chat.privacy_file:
        return ""
    try:
        return Path(settings.chat.privacy_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"chat.privacy_file {settings.chat.privacy_file!r} cannot be read: {error}") from error


def _web_parts(
    cycle: Cycle,
    playground: Playground,
    console: Playground,
    webhooks: dict[tuple[str, str], Webhook],
    settings: WebSettings,
) -> WebParts:
    return WebParts(
        store=cycle.store,
        clock=utc_now,
        playground=playground,
        console=console,
        status=cycle.status,
        compare=cycle.comparing.compare,
        export=cycle.exporting.made,
        undo=cycle.steering.undo,
        roll_back=cycle.steering.roll_back,
        revoke=cycle.steering.revoke,
        set_paused=cycle.steering.set_paused,
        train_now=cycle.steering.train_now,
        let_in=cycle.admitting.let_in,
        requeue=cycle.steering.requeue,
        n_adapters=cycle.serving.n_loaded,
        backup=cycle.backup,
        webhooks=webhooks,
        session_hours=settings.session_hours,
        session_idle_minutes=settings.session_idle_minutes,
        trusted_proxies=settings.trusted_proxies,
        writes_per_minute=settings.writes_per_minute,
        host_names=settings.host_names,
    )


@asynccontextmanager
async def _task(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run `work` beside the block: its failure ends the block and is raised there, the block's end cancels it."""
    block = asyncio.current_task()
    assert block is not None
    task = asyncio.create_task(work)
    task.add_done_callback(lambda done: None if done.cancelled() else block.cancel())
    try:
        yield
    finally:
        failed = task.done()
        task.cancel()
        ended = await asyncio.gather(task, return_exceptions=True)
        if failed and isinstance(ended[0], Exception):
            raise ended[0]
