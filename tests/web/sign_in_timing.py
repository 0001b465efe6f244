"""`python -m tests.web.sign_in_timing`: whether the time of a refusal tells who is an admin (S-09).

Sign-ins with a wrong password, for an admin and for a name that nobody has, in random order and with argon2id at its
real cost; ends with Welch's t of the two, as one JSON line. |t| below 4.5 is no evidence of a difference.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import statistics
import time
from datetime import UTC, datetime, timedelta

from claasbot.services.passwords import Passwords
from claasbot.services.signing_in import Credentials, SigningIn
from claasbot.storage import admins
from claasbot.storage.store import Store

LIMIT = 4.5
GOOD = "drei Enten am Fluss"


def welch_t(one: list[float], other: list[float]) -> float:
    """Of two samples whose variances may differ."""
    spread = statistics.variance(one) / len(one) + statistics.variance(other) / len(other)
    return (statistics.fmean(one) - statistics.fmean(other)) / spread**0.5


async def times(n: int, seed: int) -> tuple[list[float], list[float]]:
    """Seconds of `n` refusals each: of the admin, of nobody."""
    store, passwords = Store(None), Passwords()
    await store.open()
    now = datetime(2026, 11, 20, tzinfo=UTC)
    eve = await store.run(admins.add, "eve", "owner", now)
    await store.run(admins.set_password, eve.admin_id, await passwords.hashed(GOOD, of="eve"))
    signing_in = SigningIn(store, lambda: now, passwords)
    names = ["eve", "bob"] * n
    random.Random(seed).shuffle(names)
    found: dict[str, list[float]] = {"eve": [], "bob": []}
    gc.disable()
    for at, name in enumerate(names):
        now += timedelta(hours=1)  # nobody tries too often
        began = time.perf_counter()
        outcome = await signing_in.check(Credentials(name=name, password=f"wrong, but long {at}"), "192.0.2.7")
        found[name].append(time.perf_counter() - began)
        assert outcome == "wrong"
    gc.enable()
    await store.close()
    return found["eve"], found["bob"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.web.sign_in_timing", description=__doc__)
    parser.add_argument("--tries", type=int, default=1_000, help="refusals of each kind (default: 1000)")
    parser.add_argument("--seed", type=int, default=7)
    chosen = parser.parse_args()
    admin, nobody = asyncio.run(times(chosen.tries, chosen.seed))
    t = welch_t(admin, nobody)
    facts = {
        "tries": 2 * chosen.tries,
        "seed": chosen.seed,
        "admin_ms": round(1_000 * statistics.median(admin), 3),
        "nobody_ms": round(1_000 * statistics.median(nobody), 3),
        "welch_t": round(t, 2),
        "limit": LIMIT,
    }
    print(json.dumps(facts))
    return int(abs(t) >= LIMIT)


if __name__ == "__main__":
    raise SystemExit(main())
