"""One running bot for the module that fuzzes it, and how long the fuzzing goes on: `make fuzz` is FAULTS=full."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from claasbot.storage.store import Store
from tests.chat.telegram.fake_bot_api import FakeBotApi
from tests.fuzz.site import RunningSite


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSite]:
    with RunningSite(tmp_path_factory.mktemp("site") / "data") as running:
        yield running


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    store = Store(None)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def fake() -> AsyncIterator[FakeBotApi]:
    fake = FakeBotApi()
    await fake.start()
    yield fake
    await fake.stop()
    fake.check()
