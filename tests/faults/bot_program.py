"""`claasbot run` with the scripted server and the dry-run engine in place of vLLM and the trainer; all else is real.

`python -m tests.faults.bot_program` reads the same settings and keeps the same rules: data folder and its lock, store,
platforms, web, signals. It starts in a second, so it can be killed two hundred times.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack

from claasbot import settings
from claasbot.data_folder import DataFolder
from claasbot.engines.dry_run import DryRunEngine
from claasbot.errors import ClaasbotError
from claasbot.hosting import run_until_stopped
from claasbot.inference.scripted import ScriptedServer, toy_logprobs
from claasbot.machines import Machines, Say
from claasbot.settings import Settings
from tests.dry_machines import machines_of

_PIECE_S = 0.004
"""An answer takes a tenth of a second or so: long enough to be killed in it."""
_TELL_S = 5.0


async def _machines(chosen: Settings, data: DataFolder, stack: AsyncExitStack, say: Say) -> Machines:
    server, engine = ScriptedServer(), DryRunEngine(toy_logprobs)
    server.faults.before_token = lambda: asyncio.sleep(_PIECE_S)
    if "--tell-tasks" in sys.argv:
        telling = asyncio.create_task(_tell_tasks(say, server, engine))
        stack.callback(telling.cancel)
    return machines_of(server, engine, data, stack)


async def _tell_tasks(say: Say, server: ScriptedServer, engine: DryRunEngine) -> None:
    """For `soak`: nobody outside can count them. What these two keep for tests would be taken for the bot's memory."""
    while True:
        await asyncio.sleep(_TELL_S)
        server.seen.requests.clear()
        engine.seen.ran.clear()
        say(f"tasks {len(asyncio.all_tasks())}")


def main() -> int:
    try:
        return asyncio.run(run_until_stopped(settings.load(), print, _machines))
    except ClaasbotError as error:
        print(f"claasbot: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
