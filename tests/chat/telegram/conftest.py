"""A simulated Telegram for each test; what it or its client did against the Bot API's schema fails the test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.chat.telegram.fake_bot_api import FakeBotApi


@pytest.fixture
async def fake() -> AsyncIterator[FakeBotApi]:
    fake = FakeBotApi()
    await fake.start()
    yield fake
    await fake.stop()
    fake.check()
