"""S-26: what admins did is one chain; whoever changes, drops or replaces a row of it is noticed, and erasure is not."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime

import pytest

from claasbot.storage import audit, people, settings_seen
from claasbot.storage.rows import change, rows
from claasbot.storage.switches import switch

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def three_acts(db) -> None:
    audit.add(db, "telegram:7", "blocked p2", NOW)
    audit.add(db, "playground:admin", "let in", NOW, whom="telegram:8")
    audit.add(db, "telegram:7", "learning: paused", NOW)


def tampered(db, sql: str, *values: object) -> str:
    """What is said after somebody who may write the file has got rid of the triggers, and rows or words."""
    for trigger in ("audit_rows_stay", "audit_rows_do_not_change", "audit_names_only_go"):
        db.conn.execute(f"DROP TRIGGER {trigger}")
    assert change(db, sql, *values) > 0
    return audit.verify(db).trouble


async def test_what_nobody_touched_verifies(store):
    await store.run(three_acts)
    chain = await store.run(audit.verify)
    assert (chain.n_rows, chain.trouble, len(chain.head)) == (3, "", 64)


async def test_nothing_at_all_verifies(store):
    assert (await store.run(audit.verify)).trouble == ""


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("UPDATE audit SET did = 'let in p2' WHERE id = 1", "row 1 does not follow"),
        ("UPDATE audit SET at = '2020-01-01T00:00:00+00:00' WHERE id = 2", "row 2 does not follow"),
        ("UPDATE audit SET who = 'telegram:9' WHERE id = 2", "row 2 names somebody else"),
        ("UPDATE audit SET whom = 'telegram:9' WHERE id = 2", "row 2 names somebody else"),
        ("UPDATE audit SET who = 'telegram:9', who_salt = '' WHERE id = 1", "row 1 has lost the salt"),
        ("DELETE FROM audit WHERE id = 1", "row 2 does not follow"),
        ("DELETE FROM audit WHERE id = 3", "the end is missing"),
        ("DELETE FROM audit", "the end is missing"),
        (
            "INSERT INTO audit (at, who, did) VALUES ('2026-11-20', 'telegram:7', 'let in p9')",
            "row 4 is not part of the chain",
        ),
    ],
)
async def test_a_row_that_was_changed_dropped_or_put_in_is_named(store, sql, says):
    await store.run(three_acts)
    assert says in await store.run(tampered, sql)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE audit SET did = 'nothing' WHERE id = 1",
        "UPDATE audit SET chain_sha256 = '' WHERE id = 3",
        "UPDATE audit SET who = 'telegram:9' WHERE id = 1",
        "DELETE FROM audit WHERE id = 3",
    ],
)
async def test_the_database_itself_refuses(store, sql):
    await store.run(three_acts)
    with pytest.raises(sqlite3.IntegrityError, match="audit"):
        await store.run(change, sql)
    assert (await store.run(audit.verify)).trouble == ""


async def test_a_missing_end_still_shows_when_more_is_written(store):
    """Whoever takes the last row out is not covered by the next honest one."""

    def cut_and_go_on(db) -> str:
        three_acts(db)
        assert "the end is missing" in tampered(db, "DELETE FROM audit WHERE id = 3")
        audit.add(db, "telegram:7", "learning: resumed", NOW)
        return audit.verify(db).trouble

    assert "the end is missing" in await store.run(cut_and_go_on)


async def test_a_chain_that_was_written_anew_lacks_the_head_that_somebody_kept(store):
    await store.run(three_acts)
    kept = (await store.run(audit.verify)).head

    def written_anew(db) -> None:
        tampered(db, "DELETE FROM audit")
        change(db, "DELETE FROM switch WHERE name = ?", audit.HEAD)
        three_acts(db)

    assert (await store.run(audit.verify, kept)).trouble == ""
    await store.run(written_anew)
    assert (await store.run(audit.verify)).trouble == ""
    assert kept in (await store.run(audit.verify, kept)).trouble


async def test_a_name_goes_and_the_chain_holds(store):
    def forgotten(db) -> list:
        person = people.person_of(db, "telegram", "7", "Ada", NOW)
        three_acts(db)
        audit.take_names_out(db, person.person_id)
        audit.add(db, "playground:admin", "learning: on", NOW)
        return rows(db, "SELECT * FROM audit")

    found = await store.run(forgotten)
    assert [row["who"] for row in found] == ["p1, forgotten", "playground:admin", "p1, forgotten", "playground:admin"]
    chain = await store.run(audit.verify)
    assert (chain.trouble, chain.n_nameless) == ("", 2)
    assert "telegram:7" not in str(found)
    assert [row["who_salt"] == "" for row in found] == [True, False, True, False]  # a guess cannot be checked either


async def test_rows_from_before_the_chain_are_taken_into_it(store):
    def old_rows(db) -> None:
        for did in ("blocked p2", "let in again p2"):
            db.conn.execute("INSERT INTO audit (at, who, did) VALUES (?, 'telegram:7', ?)", (NOW.isoformat(), did))
        audit.begin(db, NOW)

    await store.run(old_rows)
    chain = await store.run(audit.verify)
    assert (chain.n_rows, chain.trouble) == (2, "")


async def test_pages_go_on_where_the_last_one_ended(store):
    await store.run(three_acts)
    newest = await store.run(audit.latest, 2)
    older = await store.run(audit.latest, 2, newest[-1]["id"])
    assert [row["id"] for row in (*newest, *older)] == [3, 2, 1]


async def test_a_changed_setting_is_written_down_by_its_name(store):
    def note(db, **values: str) -> list[str]:
        return settings_seen.note(db, {name.replace("__", "."): value for name, value in values.items()}, "host", NOW)

    assert await store.run(note, web__port="8176", access__admins="telegram:7") == []
    assert await store.run(note, web__port="8176", access__admins="telegram:7") == []
    assert await store.run(note, web__port="9000", access__admins="telegram:7", log__level="info") == ["web.port"]
    [row] = await store.run(audit.latest)
    assert row["did"] == "changed settings: web.port"
    assert "telegram:7" not in await store.run(switch, settings_seen.SEEN)
