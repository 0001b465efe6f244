"""When notices wait for the morning."""

from datetime import UTC, datetime

import pytest

from claasbot.domain.quiet import quiet_hours
from claasbot.errors import SettingsError


def at(hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 11, 20, hour, minute, tzinfo=UTC)


def test_quiet_hours_over_midnight_end_in_the_morning():
    night = quiet_hours("22-8")
    assert night.ends_at(at(23)) == datetime(2026, 11, 21, 8, tzinfo=UTC)
    assert night.ends_at(at(3, 59)) == at(8)
    assert night.ends_at(at(8)) is None
    assert night.ends_at(at(21, 59)) is None


def test_quiet_hours_inside_a_day():
    siesta = quiet_hours("13-15")
    assert siesta.ends_at(at(13)) == at(15)
    assert siesta.ends_at(at(15)) is None


def test_no_quiet_hours():
    assert quiet_hours("  ") is None


@pytest.mark.parametrize("text", ["22", "22-25", "8-8", "night"])
def test_other_words_are_refused_with_an_example(text):
    with pytest.raises(SettingsError, match="22-8"):
        quiet_hours(text)
