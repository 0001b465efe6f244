import os

import pytest

from claasbot.training.environment import VARIABLES, set_environment


def test_what_is_set_on_purpose_stays_and_the_rest_is_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    set_environment()
    assert os.environ["OMP_WAIT_POLICY"] == "active"
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    for name in VARIABLES:  # monkeypatch only takes back what it set itself
        monkeypatch.delenv(name)
