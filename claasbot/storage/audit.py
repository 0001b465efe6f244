"""Who did what to the bot or to other people's versions. Never holds what people said.

A chain: each row's hash covers the hash before it, so that a row that was changed, put in or taken out shows. Names are
in it by a salted digest only: an erasure takes the name and its salt out of the row, and the chain still holds.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlite_utils import Database

from claasbot.errors import StoreError
from claasbot.storage.connecting import ERRORS, connect, explain
from claasbot.storage.rows import Row, change, insert, one, rows, text_of
from claasbot.storage.switches import set_switch, switch

HEAD = "audit"
"""The switch that says how many rows there are and the hash of the last, so that a missing end shows."""
_BEFORE_THE_FIRST = "0" * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """What a look at the whole audit found."""

    n_rows: int
    head: str
    """The hash of the last row; whoever kept one earlier finds it in the chain for ever."""
    n_nameless: int
    """Rows from which an erasure took a name."""
    trouble: str = ""
    """The first thing that does not fit; empty: nobody touched it."""

    @property
    def told(self) -> str:
        return f"{self.n_rows} {'row' if self.n_rows == 1 else 'rows'}, whole"


def add(db: Database, who: str, did: str, now: datetime, *, whom: str = "") -> None:
    """`who` and `whom` are accounts (`telegram:7`): an erasure finds them there, and nowhere in `did`."""
    insert(db, "audit", at=text_of(now), who=who, did=did, whom=whom)
    _chain_up(db, now)


def begin(db: Database, now: datetime) -> None:
    """At every start: rows from before there was a chain are taken into it."""
    if one(db, "SELECT 1 FROM audit WHERE chain_sha256 = ''") is not None:
        _chain_up(db, now)


def latest(db: Database, limit: int = 200, before: int | None = None) -> list[Row]:
    """Newest first; `before`: older than the row of that id."""
    return rows(
        db,
        "SELECT id, at, who, trim(did || ' ' || whom) AS did FROM audit WHERE id < ? ORDER BY id DESC LIMIT ?",
        2**62 if before is None else before,
        limit,
    )


def verify(db: Database, seen: str = "") -> Chain:
    """Walk the whole chain. `seen`: a head that somebody kept, which must stand in it."""
    previous, n_rows, n_nameless, trouble, is_seen = _BEFORE_THE_FIRST, 0, 0, "", not seen
    for row in _all(db):
        n_rows += 1
        n_nameless += "" in (row["who_salt"], row["whom_salt"])
        trouble = trouble or _trouble_of(row, previous)
        previous = row["chain_sha256"]
        is_seen = is_seen or previous == seen
    if not trouble and switch(db, HEAD) != (_head(n_rows, previous) if n_rows else None):
        trouble = f"the end is missing: {switch(db, HEAD)!r} was written last, {_head(n_rows, previous)!r} is there"
    if not trouble and not is_seen:
        trouble = f"no row has the hash {seen[:64]!r}: the rows since then were replaced"
    return Chain(n_rows=n_rows, head=previous, n_nameless=n_nameless, trouble=trouble)


def verify_file(path: Path, key: str = "") -> Chain:
    """Without changing the file, where no bot runs. Raises StoreError for one that cannot be read."""
    try:
        with closing(connect(path, key, is_read_only=True)) as connection:
            db = Database(connection)
            has_chain = "chain_sha256" in [row["name"] for row in rows(db, "PRAGMA table_info(audit)")]
            return verify(db) if has_chain else Chain(n_rows=0, head=_BEFORE_THE_FIRST, n_nameless=0)
    except ERRORS as error:
        raise StoreError(explain(error, path, key)) from error


def take_names_out(db: Database, person_id: int) -> None:
    """Whatever accounts the person has, in both columns, with the salt by which a guess could be checked."""
    theirs = "(SELECT platform || ':' || account FROM account WHERE person_id = ?2)"
    for column in ("who", "whom"):
        change(
            db,
            f"UPDATE audit SET {column} = ?1, {column}_salt = '' WHERE {column} IN {theirs}",  # noqa: S608
            f"p{person_id}, forgotten",
            person_id,
        )


def _chain_up(db: Database, now: datetime) -> None:
    """Rows that are in no chain go to its end: the new one, and at first those from before there was a chain."""
    last = one(db, "SELECT id, chain_sha256 FROM audit WHERE chain_sha256 != '' ORDER BY id DESC LIMIT 1")
    previous = _BEFORE_THE_FIRST if last is None else str(last["chain_sha256"])
    last_id = 0 if last is None else last["id"]
    new = rows(db, "SELECT * FROM audit WHERE id > ? AND chain_sha256 = '' ORDER BY id", last_id)
    for row in new:
        salts = {name: secrets.token_hex(16) for name in ("who", "whom")}
        digests = {name: _digest(salt, row[name]) for name, salt in salts.items()}
        previous = _link(previous, row["id"], row["at"], row["did"], digests["who"], digests["whom"])
        change(
            db,
            "UPDATE audit SET who_salt = ?, whom_salt = ?, who_sha256 = ?, whom_sha256 = ?, chain_sha256 = ?"
            " WHERE id = ?",
            *salts.values(),
            *digests.values(),
            previous,
            row["id"],
        )
    set_switch(db, HEAD, _head(_n_chained(db, len(new)) + len(new), previous), now)


def _n_chained(db: Database, n_new: int) -> int:
    """As the head says: counting a long audit takes long, and would make a missing row right again."""
    known = (switch(db, HEAD) or "").partition(":")[0]
    if known.isascii() and known.isdecimal():
        return int(known)
    return int(rows(db, "SELECT count(*) AS n FROM audit")[0]["n"]) - n_new


def _trouble_of(row: Row, previous: str) -> str:
    if not row["chain_sha256"]:
        return f"row {row['id']} is not part of the chain"
    link = _link(previous, row["id"], row["at"], row["did"], row["who_sha256"], row["whom_sha256"])
    if not hmac.compare_digest(link, row["chain_sha256"]):
        return f"row {row['id']} does not follow from the row before it"
    for name in ("who", "whom"):
        salt = row[f"{name}_salt"]
        if salt and _digest(salt, row[name]) != row[f"{name}_sha256"]:
            return f"row {row['id']} names somebody else than it did"
        if not salt and not row[name].endswith(", forgotten"):
            return f"row {row['id']} has lost the salt of a name that nobody erased"
    return ""


def _link(previous: str, row_id: int, at: str, did: str, who_sha256: str, whom_sha256: str) -> str:
    return hashlib.sha256(json.dumps([previous, row_id, at, did, who_sha256, whom_sha256]).encode()).hexdigest()


def _digest(salt: str, name: str) -> str:
    return hashlib.sha256(f"{salt}:{name}".encode()).hexdigest()


def _head(n_rows: int, chain_sha256: str) -> str:
    return f"{n_rows}:{chain_sha256}"


def _all(db: Database) -> Iterator[Row]:
    """By key, a page at a time."""
    last = 0
    while page := rows(db, "SELECT * FROM audit WHERE id > ? ORDER BY id LIMIT 500", last):
        yield from page
        last = page[-1]["id"]
