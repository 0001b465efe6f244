"""Hours in which nobody is disturbed. Pure: local time in, waiting time out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from claasbot.errors import SettingsError


@dataclass(frozen=True, slots=True, kw_only=True)
class QuietHours:
    """From one full hour to another, local time of the host; it may go over midnight."""

    first: int
    last: int

    def ends_at(self, now: datetime) -> datetime | None:
        """When it is over; None when it is not quiet now. `now` carries the host's time zone."""
        if self.first < self.last:
            is_quiet = self.first <= now.hour < self.last
        else:
            is_quiet = now.hour >= self.first or now.hour < self.last
        if not is_quiet:
            return None
        end = now.replace(hour=self.last, minute=0, second=0, microsecond=0)
        return end if end > now else end + timedelta(days=1)


def quiet_hours(text: str) -> QuietHours | None:
    """`22-8`; None for an empty text. Raises SettingsError."""
    if not text.strip():
        return None
    found = re.fullmatch(r"\s*(\d{1,2})\s*-\s*(\d{1,2})\s*", text)
    if found is None or not all(int(hour) < 24 for hour in found.groups()) or found[1] == found[2]:
        raise SettingsError(f"quiet hours {text!r} are not two hours such as 22-8; leave them empty for none")
    return QuietHours(first=int(found[1]), last=int(found[2]))
