"""`bot_program` as a process to do harm to, and what its data folder says afterwards."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path
from typing import Any

from tests.chat.telegram.fake_bot_api import FakeBotApi
from tests.real.bot_process import BotProcess

NO_MODEL = Path()


class DryBot(BotProcess):
    """Starts in a second. With a simulated platform it is its bot."""

    command = (sys.executable, "-m", "tests.faults.bot_program")

    def __init__(self, data: Path, fake: FakeBotApi | None = None, **settings: str) -> None:
        if fake is not None:
            settings |= {
                "CLAASBOT_TELEGRAM_TOKEN": fake.bot.token,
                "CLAASBOT_TELEGRAM__BASE_URL": fake.base_url,
                "CLAASBOT_TELEGRAM__BASE_FILE_URL": fake.base_file_url,
            }
        super().__init__(
            data,
            NO_MODEL,
            CLAASBOT_SERVER__MODEL="",
            CLAASBOT_ACCELERATOR="cpu",
            CLAASBOT_ACCESS__MODE="open",
            CLAASBOT_LEARNING__DEBOUNCE_S="0",
            **settings,
        )

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(f"file:{self.data / 'claasbot.db'}?mode=ro", uri=True, timeout=10)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()
