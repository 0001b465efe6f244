"""Which settings the bot last started with, as digests: that one changed goes into the audit, its value does not."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from datetime import datetime

from sqlite_utils import Database

from claasbot.storage import audit
from claasbot.storage.switches import set_switch, switch

SEEN = "settings"
_SALT = "salt"


def note(db: Database, values: Mapping[str, str], who: str, now: datetime) -> list[str]:
    """The names that changed since the last start; `values` without secrets. A first start changes nothing."""
    before = json.loads(switch(db, SEEN) or "{}")
    salt = before.get(_SALT) or secrets.token_hex(8)
    digests = {name: hashlib.sha256(f"{salt}:{value}".encode()).hexdigest()[:16] for name, value in values.items()}
    changed = sorted(name for name, digest in digests.items() if before.get(name, digest) != digest)
    if changed:
        audit.add(db, who, f"changed settings: {', '.join(changed)}", now)
    if digests | {_SALT: salt} != before:
        set_switch(db, SEEN, json.dumps(digests | {_SALT: salt}), now)
    return changed
