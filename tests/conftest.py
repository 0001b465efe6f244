"""Every test is a process of its own as far as secrets go: what one bot hides is a word in the text of the next."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from claasbot import masking


@pytest.fixture(autouse=True)
def secrets_of_its_own() -> Iterator[None]:
    with masking.one_process():
        yield
