"""Encryption at rest: with a key the file says nothing, without the right one it does not open, and a change of keys
loses nothing wherever it is killed.
"""

import os
import subprocess
import sys

import pytest

from claasbot.errors import StoreError
from claasbot.storage import keys
from claasbot.storage.connecting import sqlcipher
from claasbot.storage.encryption import change_key
from claasbot.storage.rows import insert, rows
from claasbot.storage.seal import seal_of
from claasbot.storage.store import Store
from tests.faults import durable
from tests.faults.conftest import scaled
from tests.faults.durable import Fault

KEY, OTHER = "ab" * 32, "cd" * 32
SECRET = "my dog is called Rex"


async def filled(path, key, n=1):
    store = Store(path, key=key)
    await store.open()
    for _ in range(n):
        await store.run(lambda db: insert(db, "person", display_name=SECRET, created_at="t"))
    await store.close()


async def names(path, key):
    store = Store(path, key=key)
    await store.open()
    try:
        return [row["display_name"] for row in await store.run(rows, "SELECT display_name FROM person")]
    finally:
        await store.close()


def holds_secret(folder):
    return [path.name for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


async def test_no_file_of_an_encrypted_store_holds_what_people_said(tmp_path):
    path = tmp_path / "claasbot.db"
    store = Store(path, key=KEY)
    await store.open()
    await store.run(lambda db: insert(db, "person", display_name=SECRET, created_at="t"))
    assert holds_secret(tmp_path) == []
    await store.copy_to(tmp_path / "copy.db")
    await store.close()
    assert holds_secret(tmp_path) == []
    assert await names(path, KEY) == await names(tmp_path / "copy.db", KEY) == [SECRET]


async def test_an_encrypted_store_keeps_the_promises_of_a_plain_one(tmp_path):
    store = Store(tmp_path / "claasbot.db", key=KEY)
    await store.open()
    for name, value in (("journal_mode", "truncate"), ("synchronous", 2), ("secure_delete", 1), ("foreign_keys", 1)):
        assert list((await store.run(rows, f"PRAGMA {name}"))[0].values()) == [value]

    def broken(db):
        insert(db, "person", display_name="a", created_at="t")
        insert(db, "no_such_table", x=1)

    with pytest.raises(sqlcipher.OperationalError, match="no such table: no_such_table"):
        await store.run(broken)
    assert await store.run(rows, "SELECT * FROM person") == []
    await store.close()


@pytest.mark.parametrize(
    ("made_with", "opened_with", "line"),
    [
        (KEY, OTHER, "does not open with this store key"),
        (KEY, "", "set store.key_file"),
        ("", KEY, "is not encrypted, but there is a store key"),
    ],
)
async def test_a_key_that_does_not_fit_is_one_clear_line_and_changes_nothing(tmp_path, made_with, opened_with, line):
    path = tmp_path / "claasbot.db"
    await filled(path, made_with)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=line) as refused:
        await names(path, opened_with)
    assert "\n" not in str(refused.value) and KEY not in str(refused.value)
    assert path.read_bytes() == before
    assert await names(path, made_with) == [SECRET]


@pytest.mark.parametrize(("key", "new_key"), [("", KEY), (KEY, ""), (KEY, OTHER)], ids=["encrypt", "decrypt", "rekey"])
async def test_a_change_of_keys_keeps_every_row_and_leaves_no_readable_copy(tmp_path, key, new_key):
    path = tmp_path / "claasbot.db"
    await filled(path, key, 3)
    assert change_key(path, key, new_key) > 3
    assert not list(tmp_path.glob(".*"))
    assert await names(path, new_key) == [SECRET] * 3
    assert bool(holds_secret(tmp_path)) == (new_key == "")
    assert {one.name for one in tmp_path.iterdir()} == {"claasbot.db", "claasbot.db-journal", "claasbot.db.sha256"}


_CHANGE = """
import sys
from pathlib import Path
from claasbot.storage.encryption import change_key
change_key(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
"""


def change_in_a_process(path, key, new_key, fault):
    environment = os.environ | fault.environment(path.parent)
    return subprocess.run(
        [sys.executable, "-c", _CHANGE, str(path), key, new_key],
        env=environment, cwd=durable.ROOT, capture_output=True, check=False,
    ).returncode  # fmt: skip


async def test_a_change_of_keys_that_is_killed_anywhere_loses_nothing(tmp_path):
    """At every call to the disk: the file opens with the one key or the other, and the next try ends the work."""
    log = tmp_path / "calls"
    await filled(tmp_path / "whole" / "claasbot.db", "")
    assert change_in_a_process(tmp_path / "whole" / "claasbot.db", "", KEY, Fault(log=log)) == 0
    n_calls = durable.n_calls(log)
    step = max(1, n_calls // scaled(n_calls, 3))
    for at in range(1, n_calls + 1, step):
        path = tmp_path / f"at{at}" / "claasbot.db"
        await filled(path, "")
        assert change_in_a_process(path, "", KEY, Fault(do="tear" if at % 2 else "kill", at=at)) == -9
        is_done = path.read_bytes()[:6] != b"SQLite"
        assert await names(path, KEY if is_done else "") == [SECRET]
        if is_done:
            assert holds_secret(path.parent) == []  # the start has wiped what was left of the readable file
        assert change_key(path, "", KEY) > 1
        assert await names(path, KEY) == [SECRET]
        assert holds_secret(path.parent) == []
    print(f"{len(range(1, n_calls + 1, step))} kills in {n_calls} calls: 0 rows lost")


def test_no_word_is_readable_on_the_disk_of_an_encrypted_bot_also_where_it_is_killed(tmp_path):
    """The journal that a kill leaves holds pages too; the lesson goes on to the same weights."""
    words = (b"What is number", b"Shorter, by", b"scripted heard")
    log = tmp_path / "calls"
    whole = durable.run(tmp_path / "whole", "--lessons", "1", "--key", KEY, fault=Fault(log=log))
    at = durable.n_calls(log) * 3 // 4
    killed = durable.run(tmp_path / "data", "--lessons", "1", "--key", KEY, fault=Fault(do="kill", at=at))
    assert killed.was_killed
    for folder in (tmp_path / "whole", tmp_path / "data"):
        readable = [path for path in folder.rglob("*") if path.is_file() and any(w in path.read_bytes() for w in words)]
        assert readable == []
    assert durable.run(tmp_path / "data", "--lessons", "1", "--key", KEY).the("done") == whole.the("done")


def test_a_new_key_is_for_its_owner_alone_and_never_written_over(tmp_path):
    keys.write_new(tmp_path / "key")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    key = keys.read(tmp_path / "key")
    assert len(bytes.fromhex(key)) == 32
    with pytest.raises(StoreError, match="give the name of a new file"):
        keys.write_new(tmp_path / "key")
    assert keys.read(tmp_path / "key") == key


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_file_that_others_may_read_is_refused(tmp_path, mode):
    keys.write_new(tmp_path / "key")
    (tmp_path / "key").chmod(mode)
    with pytest.raises(StoreError, match="chmod 600"):
        keys.read(tmp_path / "key")


@pytest.mark.parametrize("text", ["", "secret", "ab" * 31, "zz" * 32, "ab" * 33])
def test_what_is_no_key_is_refused_without_being_shown(text):
    with pytest.raises(StoreError, match="64 hex digits") as refused:
        keys.checked(text, "store.key")
    assert not text or text not in str(refused.value)


async def test_a_changed_bit_is_noticed_in_every_page_of_an_encrypted_file(tmp_path):
    """R-09, without the seal: as after a crash."""
    path = tmp_path / "claasbot.db"
    await filled(path, KEY, 50)
    seal_of(path).unlink()
    whole = path.read_bytes()
    for page in range(0, len(whole), 4096):
        damaged = bytearray(whole)
        damaged[page + 1000 + page % 3000] ^= 1 << page % 8
        path.write_bytes(damaged)
        with pytest.raises(StoreError):
            await names(path, KEY)
