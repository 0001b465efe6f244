"""The whole bot in a process of its own, to be fuzzed from outside.

`python -m tests.fuzz.site_process --data DIR` says where it listens, as one line of JSON, and ends when its stdin does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from claasbot.data_folder import DataFolder
from tests.whole_bot import WholeBot, whole_bot


def unlimited_bot(data: Path) -> AbstractAsyncContextManager[WholeBot]:
    """Without the limit that a fuzzer would meet."""
    return whole_bot(data, web={"port": 0, "writes_per_minute": 1_000_000})


async def _serve(data: Path) -> None:
    async with unlimited_bot(data) as bot:
        await bot.taught()  # so that every page has a row
        print(json.dumps({"url": bot.bot.url, "socket": str(DataFolder(root=data).socket)}), flush=True)
        await asyncio.to_thread(sys.stdin.read)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    asyncio.run(_serve(parser.parse_args().data.absolute()))


if __name__ == "__main__":
    main()
