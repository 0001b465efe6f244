"""What the host does with the database from the shell: a key, encryption, backups; a clear line for each mistake."""

import asyncio

import pytest

from claasbot.cli import main
from claasbot.data_folder import DataFolder
from claasbot.storage.connecting import is_encrypted
from claasbot.storage.rows import insert, rows
from claasbot.storage.store import Store


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The folder of a bot that does not run and knows Ada; the shell is in an empty one."""
    monkeypatch.setenv("CLAASBOT_DATA", str(tmp_path / "data"))
    (tmp_path / "shell").mkdir()
    monkeypatch.chdir(tmp_path / "shell")
    data = DataFolder(root=tmp_path / "data")
    data.make()
    asyncio.run(add_ada(data.database))
    return data


async def add_ada(path):
    store = Store(path)
    await store.open()
    await store.run(lambda db: insert(db, "person", display_name="Ada", created_at="t"))
    await store.close()


async def people(path, key=""):
    store = Store(path, key=key)
    await store.open()
    found = await store.run(rows, "SELECT display_name FROM person")
    await store.close()
    return [row["display_name"] for row in found]


def test_a_database_is_encrypted_given_another_key_and_decrypted(data, tmp_path, monkeypatch, capsys):
    assert main(["store", "key", "--to", str(tmp_path / "a")]) == 0
    assert main(["store", "key", "--to", str(tmp_path / "b")]) == 0
    monkeypatch.setenv("CLAASBOT_STORE__KEY_FILE", str(tmp_path / "a"))
    assert main(["store", "encrypt"]) == 0
    assert is_encrypted(data.database)
    assert main(["store", "rekey", "--to", str(tmp_path / "b")]) == 0
    monkeypatch.setenv("CLAASBOT_STORE__KEY_FILE", str(tmp_path / "b"))
    assert asyncio.run(people(data.database, (tmp_path / "b").read_text().strip())) == ["Ada"]
    assert main(["store", "decrypt"]) == 0
    assert asyncio.run(people(data.database)) == ["Ada"]
    said = capsys.readouterr()
    assert said.err == ""
    assert not any((tmp_path / name).read_text().strip() in said.out for name in "ab")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["store", "key"], "say where the new key goes"),
        (["store", "encrypt"], "set store.key_file first"),
        (["restore"], "no backup is kept in"),
    ],
)
def test_what_is_missing_is_said_in_one_line(data, arguments, line, capsys):
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert line in said and said.count("\n") == 1


def test_nothing_is_encrypted_under_a_running_bot(data, tmp_path, monkeypatch, capsys):
    main(["store", "key", "--to", str(tmp_path / "a")])
    monkeypatch.setenv("CLAASBOT_STORE__KEY_FILE", str(tmp_path / "a"))
    with data.lock():
        assert main(["store", "encrypt"]) == 1
    assert "another claasbot" in capsys.readouterr().err
    assert not is_encrypted(data.database)


def test_backups_are_made_listed_and_the_newest_is_put_back(data, capsys):
    assert main(["backup", "--list"]) == 0
    assert capsys.readouterr().out == f"No backup is kept in {data.root / 'backups'}.\n"
    assert main(["backup"]) == 0
    [folder] = (data.root / "backups").iterdir()
    capsys.readouterr()
    assert main(["backup", "--list"]) == 0
    assert capsys.readouterr().out.startswith(f"{folder}  0 versions, kept until 20")
    assert main(["restore"]) == 1
    assert "--aside" in capsys.readouterr().err
    data.database.write_bytes(b"damaged")
    assert main(["restore", "--aside"]) == 0
    assert asyncio.run(people(data.database)) == ["Ada"]
    [kept] = data.root.glob("claasbot.db.until-*Z")
    assert kept.read_bytes() == b"damaged"


def test_an_encrypted_backup_is_put_back_with_its_key_only(data, tmp_path, monkeypatch, capsys):
    main(["store", "key", "--to", str(tmp_path / "a")])
    monkeypatch.setenv("CLAASBOT_STORE__KEY_FILE", str(tmp_path / "a"))
    main(["store", "encrypt"])
    assert main(["backup"]) == 0
    monkeypatch.delenv("CLAASBOT_STORE__KEY_FILE")
    assert main(["restore", "--aside"]) == 1
    assert is_encrypted(data.database)
    monkeypatch.setenv("CLAASBOT_STORE__KEY_FILE", str(tmp_path / "a"))
    assert main(["restore", "--aside"]) == 0
    assert asyncio.run(people(data.database, (tmp_path / "a").read_text().strip())) == ["Ada"]
