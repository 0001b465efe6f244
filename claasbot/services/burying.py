"""Who was forgotten, kept beside the database and beside the backups: a backup that is put back forgets them again.

A person is named by number and first contact only. Refuses to keep accounts, hashed or not: there are so few that all
of them can be tried.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path

from claasbot import adapter_files
from claasbot.errors import BadInput
from claasbot.services.backing_up import DATABASE
from claasbot.services.snapshots import kept_in
from claasbot.storage.erasure import Tombstone

ERASED = "erased.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class StillHeld:
    """Where somebody who was forgotten still is."""

    name: str
    expires_at: datetime | None
    """When claasbot deletes it; None: only the host does."""


def buried(folder: Path) -> list[Tombstone]:
    """Everybody who was forgotten here. Raises BadInput for a list that cannot be read: nobody may be missed."""
    path = folder / ERASED
    try:
        return [Tombstone(**facts) for facts in json.loads(path.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(f"{str(path)!r} cannot be read ({error}); mend it: it says who must stay forgotten.") from error


def bury(folders: Sequence[Path], them: Sequence[Tombstone]) -> None:
    """Write them down in each of these folders that exists, on the disk when this returns."""
    for folder in folders:
        if not folder.is_dir():
            continue
        known = buried(folder)
        if more := [one for one in them if one not in known]:
            adapter_files.write_aside(folder / ERASED, json.dumps([asdict(one) for one in (*known, *more)], indent=1))


def still_held(data: Path, backups: Path, made_at: datetime, *, days: int) -> list[StillHeld]:
    """The backups from after somebody's first contact, oldest first, and databases that a restore put aside.

    `days`: how long a backup is kept.
    """
    since = [one for one in reversed(kept_in(backups)) if one.made_at >= made_at]
    found = [StillHeld(name=one.folder.name, expires_at=one.made_at + timedelta(days=days)) for one in since]
    aside = sorted(path.name for path in data.glob(f"{DATABASE}.until-*"))
    return found + [StillHeld(name=name, expires_at=None) for name in aside]
