"""Commands that measure: the demonstration and the benches. On data folders and ports of their own."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from claasbot.app import running
from claasbot.chat.console import ConsoleChat
from claasbot.data_folder import DataFolder
from claasbot.errors import EngineError
from claasbot.evals.bench import as_facts, bench_chat, bench_lesson
from claasbot.evals.demo import DemoResult, Stack, run_demo
from claasbot.evals.report import write_report
from claasbot.evals.suite import load
from claasbot.machines import Say, prepare_model, wants_embedded_model
from claasbot.settings import AccessSettings, DiscordSettings, Settings, TelegramSettings

_PLATFORM = "simulated"
_DEMO_MAX_TOKENS = 128
_SUITE = "one_short_sentence"


async def demonstrate(settings: Settings, say: Say, *, n_seeds: int, n_feedbacks: int, report: Path) -> DemoResult:
    """Scripted people teach the real stack; prints as it goes and writes the report."""
    suite = load(_SUITE)
    async with stack_of_its_own(settings, say) as stack:
        result = await run_demo(
            stack,
            suite,
            seeds=range(n_seeds),
            n_feedbacks=n_feedbacks,
            say=say,
        )
    write_report(result, report)
    summary = result.summary()
    say(
        f"Compliance {summary['compliance_before']:.2f} before, {summary['compliance_after']:.2f} after "
        f"{summary['feedbacks']:.1f} feedbacks; controls: {summary['control_no_learning']:.2f} without learning, "
        f"{summary['control_neutral']:.2f} with thanks only. {summary['seconds']:.0f} s. Report: {report}"
    )
    return result


async def bench(settings: Settings, what: str, n_repeats: int, say: Say) -> dict[str, object]:
    """`step`, `chat` or `lesson`; shows a table and returns the facts of `--json`."""
    if what == "step":
        return await _bench_step(settings, n_repeats, say)
    suite = load(_SUITE)
    async with stack_of_its_own(settings, say) as stack:
        if what == "lesson":
            facts = await bench_lesson(stack, suite, n_repeats)
            for name, value in facts.items():
                say(f"{name:32} {value:.3f}" if isinstance(value, float) else f"{name:32} {value}")
            return facts
        table = await bench_chat(stack, suite, n_repeats)
    say(f"{'who':20} {'at once':>8} {'tokens/s':>9} {'first token s':>14}")
    for row in table:
        say(f"{row.who:20} {row.at_once:>8} {row.tokens_per_s:>9.1f} {row.first_token_s:>14.3f}")
    facts = as_facts(table)
    say(f"adapters / base at 16: {facts['adapters_to_base_at_16']:.2f}")
    return facts


@asynccontextmanager
async def stack_of_its_own(settings: Settings, say: Say) -> AsyncIterator[Stack]:
    """The real bot on a temporary data folder and free ports, with a chat surface for scripted people."""
    model = settings.server.model
    if wants_embedded_model(settings):
        folder = DataFolder(root=settings.data.absolute()).embedded_model
        if not (folder / "config.json").is_file():
            await prepare_model(folder, say)
        model = str(folder)
    with tempfile.TemporaryDirectory(prefix="claasbot-") as data:
        own = settings.model_copy(
            update={
                "data": Path(data),
                "server": settings.server.model_copy(update={"model": model, "port": _free_port(), "url": ""}),
                "web": settings.web.model_copy(update={"port": 0}),
                "access": AccessSettings(mode="open"),
                "telegram": TelegramSettings(),  # scripted people are no reason to poll the host's bot
                "discord": DiscordSettings(),
                "learning": settings.learning.model_copy(update={"is_on": True}),
                "chat": settings.chat.model_copy(update={"max_tokens": _DEMO_MAX_TOKENS, "answers_per_day": 0}),
            }
        )
        chat = ConsoleChat(_PLATFORM)
        async with running(own, say, extra_clients=(chat,)) as bot:
            yield Stack(
                chat=chat,
                platform=_PLATFORM,
                store=bot.store,
                server=bot.server,
                serving=bot.cycle.serving,
                rules=bot.cycle.rules.chat,
            )


async def _bench_step(settings: Settings, n_repeats: int, say: Say) -> dict[str, object]:
    """In a process of its own: torch is imported in the trainer only. Raises EngineError when it fails."""
    folder = Path(settings.server.model or DataFolder(root=settings.data.absolute()).embedded_model)
    if wants_embedded_model(settings) and not (folder / "config.json").is_file():
        await prepare_model(folder, say)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "claasbot.training.bench_step", "--model", str(folder), "--json",
        "--repeat", str(n_repeats), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await process.communicate()
    lines = output.decode().splitlines()
    if process.returncode != 0 or not lines:
        raise EngineError(f"the step bench ended with {process.returncode}; its last line: {lines[-1:]!r}")
    for line in lines[:-1]:
        say(line)
    facts: dict[str, object] = json.loads(lines[-1])
    return facts


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
