"""The composition root: the only file that names concrete implementations.

`running` brings everything up in order and takes it down again, whatever happens between:
data folder, store, base model, server and trainer side by side, the cycle, the web.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pydantic import SecretStr

from claasbot.adapter_checksum import expected_checksum
from claasbot.base_model import find_model
from claasbot.chat.discord import tokens as discord_tokens
from claasbot.chat.telegram import tokens as telegram_tokens
from claasbot.children import Child
from claasbot.data_folder import EMBEDDED_MODEL, DataFolder
from claasbot.doctor import Accounts
from claasbot.domain.adapter import AdapterVersion
from claasbot.domain.experience import Trainable
from claasbot.domain.quiet import quiet_hours
from claasbot.engines.local import LocalEngine, TrainerLimits
from claasbot.errors import ModelMissing, ServerRefused, SettingsError
from claasbot.inference.launch import LaunchedServer, ServerPlan, check_port
from claasbot.inference.model_folder import base_facts
from claasbot.inference.vllm import Mount, VllmServer
from claasbot.ports import ChatClient, InferenceServer, TrainingEngine
from claasbot.services.admin_commands import HELP as ADMIN_HELP
from claasbot.services.clock import utc_now
from claasbot.services.commands import ALIASES, HELP, WITH_ARGUMENT
from claasbot.services.cycle import Cycle, CycleRules, Outside
from claasbot.services.exchanges import ChatRules
from claasbot.services.health import Light
from claasbot.services.learning import LessonRules
from claasbot.settings import DiscordSettings, Settings, TelegramSettings, WebSettings
from claasbot.storage import completions
from claasbot.storage.store import Store
from claasbot.web.parts import Webhook, WebParts
from claasbot.web.playground import Playground
from claasbot.web.server import WebServer, check_web_port
from claasbot.web.sign_in import new_sign_in_link
from claasbot.web.tls import refuse_plain_http, server_context

if TYPE_CHECKING:
    from claasbot.chat.discord.client import DiscordChat
    from claasbot.chat.telegram.client import TelegramChat

log = logging.getLogger(__name__)

Say = Callable[[str], None]
"""Shows one line to the person who started claasbot."""

_GPU_MODEL = "Qwen/Qwen3-8B"
_PROGRESS_S = 5.0
PLATFORMS = ("telegram", "discord")
"""Their lights begin with these names."""
_TELEGRAM_SECRET = "X-Telegram-Bot-Api-Secret-Token"  # noqa: S105 - a header's name
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


def is_gpu(settings: Settings) -> bool:
    """`auto` takes the GPU where NVIDIA's tool lists one, as the Makefile does."""
    if settings.accelerator == "auto":
        tool = shutil.which("nvidia-smi")
        return tool is not None and subprocess.run([tool, "-L"], capture_output=True, check=False).returncode == 0
    return settings.accelerator == "gpu"


def base_model_name(settings: Settings) -> str:
    """The name under which the server serves the base model."""
    return settings.server.model or (_GPU_MODEL if is_gpu(settings) else EMBEDDED_MODEL)


def wants_embedded_model(settings: Settings) -> bool:
    return not settings.server.model and not is_gpu(settings)


@asynccontextmanager
async def running(settings: Settings, say: Say, *, extra_clients: tuple[ChatClient, ...] = ()) -> AsyncIterator[Bot]:
    """The whole bot, up and answering; everything is down again when the block ends."""
    data = DataFolder(root=settings.data.absolute())
    async with AsyncExitStack() as stack:
        stack.enter_context(data.lock())
        _check_early(settings)
        store = Store(data.database)
        await store.open()
        stack.push_async_callback(store.close)
        model = await _model_folder(settings, data, say)
        server, engine = await _server_and_engine(settings, data, model, stack, say)
        if not isinstance(server, LaunchedServer) and (trouble := await server.trouble()):
            say(f"server: {trouble}")
        here = (Playground("playground", "main"), Playground("console", "main"))
        elsewhere = platforms(settings, data, store)
        cycle = _cycle(settings, data, store, server, engine, (*here, *elsewhere.clients, *extra_clients))
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
        yield Bot(cycle=cycle, store=store, server=server, engine=engine, url=web.url)


def _cycle(
    settings: Settings,
    data: DataFolder,
    store: Store,
    server: VllmServer,
    engine: LocalEngine,
    clients: tuple[ChatClient, ...],
) -> Cycle:
    async def lights() -> tuple[Light, ...]:
        return await _server_light(server), _trainer_light(engine, is_busy=cycle.handover.is_lent)

    cycle = Cycle(
        Outside(
            store=store,
            server=server,
            engine=engine,
            clients=clients,
            data=data.root,
            restart_server=_restarter(server),
            expected_checksum=_checksums(data.root),
            lights=lights,
        ),
        cycle_rules(settings),
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
        privacy=_privacy(settings),
    )


def _privacy(settings: Settings) -> str:
    """The host's own words. Raises SettingsError for a file that cannot be read."""
    if not settings.chat.privacy_file:
        return ""
    try:
        return Path(settings.chat.privacy_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"chat.privacy_file {settings.chat.privacy_file!r} cannot be read: {error}") from error


async def prepare_model(folder: Path, say: Say) -> None:
    """Make the embedded model's folder with the trainer's own program, once. Raises ModelMissing with its last line."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "claasbot.training.prepare", "--to", str(folder),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    last = ""
    assert process.stdout is not None
    try:
        async for line in process.stdout:
            last = line.decode(errors="replace").strip()
            say(f"model: {last}")
        status = await process.wait()
    except asyncio.CancelledError:  # what it has made so far lies aside; the next start removes it
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    if status != 0:
        raise ModelMissing(f"the base model could not be prepared: {last or 'no output'}")


async def _model_folder(settings: Settings, data: DataFolder, say: Say) -> Path:
    if settings.server.model:
        return find_model(settings.server.model)
    if is_gpu(settings):
        return find_model(_GPU_MODEL)
    if not (data.embedded_model / "config.json").is_file():
        await prepare_model(data.embedded_model, say)
    return data.embedded_model


async def _server_and_engine(
    settings: Settings, data: DataFolder, model: Path, stack: AsyncExitStack, say: Say
) -> tuple[VllmServer, LocalEngine]:
    """Start both at the same time: each spends most of its start reading the same weights."""
    server = _server(settings, data, model)
    engine = LocalEngine(
        jobs=data.jobs,
        model=model,
        log_path=data.logs / "trainer.log",
        threads=settings.trainer.threads,
        device="cuda" if is_gpu(settings) else "cpu",
        limits=TrainerLimits(deadline_s=settings.trainer.job_deadline_s),
    )
    stack.push_async_callback(server.close)
    stack.push_async_callback(engine.close)
    try:
        async with asyncio.TaskGroup() as group:
            if isinstance(server, LaunchedServer):
                group.create_task(_started("server", server.start, say))
            group.create_task(_started("trainer", engine.start, say))
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return server, engine


def _server(settings: Settings, data: DataFolder, model: Path) -> VllmServer:
    chosen = settings.server
    name = base_model_name(settings)
    if chosen.url:
        mount = None
        if chosen.adapters_path:
            mount = Mount(here=data.adapters, there=PurePosixPath(chosen.adapters_path))
        return VllmServer(
            base_facts(name, model),
            url=chosen.url,
            api_key=chosen.api_key or None,
            max_loras=chosen.max_loras,
            mount=mount,
        )
    plan = ServerPlan(
        model=model,
        base_model=name,
        port=chosen.port,
        accelerator="gpu" if is_gpu(settings) else "cpu",
        max_lora_rank=settings.recipe.rank,
        max_loras=chosen.max_loras,
        max_cpu_loras=chosen.max_cpu_loras,
        max_model_len=chosen.max_model_len,
        kv_cache_gib=chosen.kv_cache_gib,
        gpu_memory_share=chosen.gpu_memory_share,
        threads=chosen.threads,
        start_deadline_s=chosen.start_deadline_s,
        log_path=data.logs / "server.log",
    )
    return LaunchedServer(plan)


def model_folder_if_any(settings: Settings, data: DataFolder) -> Path | None:
    """Where the base model is or will be; None for one of the hub that is not here yet."""
    if wants_embedded_model(settings):
        return data.embedded_model
    try:
        return find_model(settings.server.model or _GPU_MODEL)
    except ModelMissing:
        return None


async def _started(name: str, start: Callable[[Callable[[float], None]], Awaitable[None]], say: Say) -> None:
    """Start a child and say every few seconds that it is still starting."""
    said = 0.0

    def progress(seconds: float) -> None:
        nonlocal said
        if seconds - said >= _PROGRESS_S:
            said = seconds
            say(f"{name}: starting, {seconds:.0f} s")

    say(f"{name}: starting")
    began = time.perf_counter()
    await start(progress)
    say(f"{name}: ready after {time.perf_counter() - began:.0f} s")


def _restarter(server: VllmServer) -> Callable[[], Awaitable[None]]:
    async def restart() -> None:
        if not isinstance(server, LaunchedServer):
            raise ServerRefused(
                "the attached server cannot drop an adapter's copy: restart it, then the erasure goes on by itself"
            )
        await server.restart("an adapter must leave its memory")

    return restart


def _checksums(data: Path) -> Callable[[AdapterVersion], Awaitable[str | None]]:
    async def expected(version: AdapterVersion) -> str | None:
        return await asyncio.to_thread(expected_checksum, data / version.folder, "bfloat16")

    return expected


def bot_accounts(settings: Settings) -> tuple[Accounts, ...]:
    """The platforms that have a token, for the doctor; no library is needed for that."""
    telegram = _accounts("telegram", settings.telegram.tokens, telegram_tokens.account_of)
    discord = _accounts("discord", settings.discord.tokens, discord_tokens.account_of, discord_tokens.invitation)
    return tuple(one for one in (telegram, discord) if one.n_tokens)


def _accounts(
    platform: str,
    tokens: tuple[SecretStr, ...],
    account_of: Callable[[str], str],
    invitation: Callable[[str], str] | None = None,
) -> Accounts:
    troubles, invitations = [], []
    for token in tokens:
        try:
            account_of(token.get_secret_value())
        except SettingsError as error:
            troubles.append(str(error))
        else:
            invitations += [invitation(token.get_secret_value())] if invitation is not None else []
    return Accounts(platform=platform, n_tokens=len(tokens), troubles=tuple(troubles), invitations=tuple(invitations))


@dataclass(frozen=True, slots=True, kw_only=True)
class Platforms:
    """The bot accounts that have a token, and who takes the updates of those that are called."""

    clients: tuple[ChatClient, ...]
    webhooks: dict[tuple[str, str], Webhook]


def platforms(settings: Settings, data: DataFolder, store: Store) -> Platforms:
    """Their libraries are imported where a token needs them. Raises SettingsError for a token that is none."""
    telegram = [_telegram(token.get_secret_value(), settings.telegram, store) for token in settings.telegram.tokens]
    discord = [_discord(token.get_secret_value(), settings.discord, data, store) for token in settings.discord.tokens]
    webhooks = {
        (one.platform, one.bot_account): Webhook(receive=one.receive, secret_header=_TELEGRAM_SECRET)
        for one in telegram
    }
    return Platforms(clients=(*telegram, *discord), webhooks=webhooks)


def _telegram(token: str, settings: TelegramSettings, store: Store) -> TelegramChat:
    from claasbot.chat.telegram.client import TelegramChat
    from claasbot.chat.telegram.receiving import TelegramRules

    account = telegram_tokens.account_of(token)
    rules = TelegramRules(
        token=token,
        base_url=settings.base_url,
        base_file_url=settings.base_file_url,
        webhook_url=f"{settings.webhook_url.rstrip('/')}/webhooks/telegram/{account}" if settings.webhook_url else "",
        webhook_secret=secrets.token_urlsafe(32) if settings.webhook_url else "",
    )
    return TelegramChat(
        rules,
        commands=HELP,
        unlisted=frozenset(ADMIN_HELP) | ALIASES.keys(),
        chat_of_message=chat_of_message(store, account),
    )


def _discord(token: str, settings: DiscordSettings, data: DataFolder, store: Store) -> DiscordChat:
    from claasbot.chat.discord.client import DiscordChat

    account = discord_tokens.account_of(token)
    return DiscordChat(
        token,
        commands=HELP | ADMIN_HELP,
        with_argument=WITH_ARGUMENT,
        synced_path=data.root / f"discord-commands-{account}",
        recent_messages=partial(store.run, completions.recent_messages, "discord", account),
        message_content=settings.message_content,
        api_base=settings.api_base or None,
        gateway=settings.gateway or None,
    )


def chat_of_message(store: Store, account: str) -> Callable[[str, str], Awaitable[str | None]]:
    async def found(chat: str, message_key: str) -> str | None:
        return await store.run(completions.chat_of_message, "telegram", account, chat, message_key)

    return found


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
        export=cycle.erasing.export,
        undo=cycle.steering.undo,
        set_paused=cycle.steering.set_paused,
        train_now=cycle.steering.train_now,
        let_in=cycle.admitting.let_in,
        requeue=cycle.steering.requeue,
        backup=cycle.backup,
        webhooks=webhooks,
        session_hours=settings.session_hours,
        host_names=settings.host_names,
    )


async def _server_light(server: VllmServer) -> Light:
    if isinstance(server, LaunchedServer):
        return _light("server", server.child, is_busy=False)
    trouble = await server.trouble()
    return Light(name="server", state="down" if trouble else "ok", detail=trouble or "attached")


def _trainer_light(engine: LocalEngine, *, is_busy: bool) -> Light:
    return _light("trainer", engine.child, is_busy=is_busy)


def _light(name: str, child: Child, *, is_busy: bool) -> Light:
    state = child.state
    if state.phase == "ready":
        return Light(name=name, state="busy" if is_busy else "ok", detail="a lesson runs" if is_busy else "ready")
    if state.phase in ("starting", "restarting"):
        return Light(name=name, state="busy", detail=state.phase)
    return Light(name=name, state="down", detail=(state.why or state.phase).splitlines()[0][:200])


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
