"""Passwords, codes and tries without a browser (S-09)."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import pyotp
import pytest
from argon2 import PasswordHasher

from claasbot.domain.admin import Admin
from claasbot.errors import BadInput, Busy
from claasbot.services.passwords import Passwords
from claasbot.services.second_factor import new_recovery_codes, normal, step_of
from claasbot.services.signing_in import MOST_WRITTEN, Credentials, SigningIn
from claasbot.services.tries import Tries
from claasbot.storage import admins, audit
from claasbot.storage.digests import digest
from claasbot.storage.store import Store

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
GOOD = "drei Enten am Fluss"
HERE, ELSEWHERE = "192.0.2.7", "198.51.100.9"


class Counting(PasswordHasher):
    """Cheap, and says what it was asked to check."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.checked: list[str] = []
        self.has_begun, self.may_go_on = threading.Event(), threading.Event()
        self.may_go_on.set()

    def verify(self, hash: str | bytes, password: str | bytes) -> bool:
        self.checked.append(str(hash))
        self.has_begun.set()
        self.may_go_on.wait(5)
        return super().verify(hash, password)


class Door:
    """An admin `eve` with a password, and what somebody tries."""

    def __init__(self, store: Store) -> None:
        self.now = NOON
        self.store = store
        self.hasher = Counting()
        self.passwords = Passwords(self.hasher)
        self.signing_in = SigningIn(store, lambda: self.now, self.passwords)

    async def open(self) -> Door:
        eve = await self.store.run(admins.add, "eve", "owner", self.now)
        password_hash = await self.passwords.hashed(GOOD, of="eve")
        await self.store.run(admins.set_password, eve.admin_id, password_hash)
        return self

    async def try_(self, name: str = "eve", password: str = GOOD, code: str = "", address: str = HERE) -> Admin | str:
        return await self.signing_in.check(Credentials(name=name, password=password, code=code), address)

    async def with_second_factor(self) -> tuple[pyotp.TOTP, tuple[str, ...]]:
        eve = await self.store.run(admins.named, "eve")
        secret, codes = pyotp.random_base32(), new_recovery_codes()
        await self.store.run(admins.begin_second_factor, eve.admin_id, secret)
        hashes = [digest(normal(code)) for code in codes]
        await self.store.run(admins.confirm_second_factor, eve.admin_id, hashes, self.now)
        return pyotp.TOTP(secret), codes

    async def written(self) -> list[tuple[str, str]]:
        return [(row["who"], row["did"]) for row in await self.store.run(audit.latest)]


@pytest.fixture
async def door(store: Store) -> Door:
    return await Door(store).open()


async def test_the_right_name_and_password_come_in_and_it_is_written_down(door):
    assert (await door.try_()).name == "eve"
    assert await door.written() == [("playground:eve", "sign-in: by password")]


async def test_codes_are_not_guessed_from_a_thousand_addresses(door):
    """Whoever knows the password has ten codes in 15 minutes, and no more wherever they come from (S-09)."""
    totp, recovery_codes = await door.with_second_factor()
    wrong = f"{(int(totp.at(NOON)) + 1) % 10**6:06}"
    for n in range(10):
        assert await door.try_(code=wrong, address=f"192.0.2.{n}") == "wrong"
    for code in (totp.at(NOON), recovery_codes[0]):
        assert await door.try_(code=code, address="198.51.100.7") == "wrong"
    door.now += timedelta(minutes=15)
    assert (await door.try_(code=totp.at(door.now), address="198.51.100.7")).name == "eve"


async def test_a_password_that_was_replaced_while_it_was_checked_opens_nothing(door):
    """argon2 takes its time: whoever had the old password is out all the same."""
    door.hasher.may_go_on.clear()
    trying = asyncio.create_task(door.try_())
    await asyncio.to_thread(door.hasher.has_begun.wait, 5)
    eve = await door.store.run(admins.named, "eve")
    await door.store.run(admins.set_password, eve.admin_id, "$another")
    door.hasher.may_go_on.set()
    assert await trying == "wrong"


async def test_where_a_code_is_needed_the_password_alone_is_wrong_and_with_a_code_right(door):
    given = Credentials(name="eve", password=GOOD)
    assert await door.signing_in.check(given, HERE, needs_code=True) == "wrong"
    totp, _ = await door.with_second_factor()
    given = Credentials(name="eve", password=GOOD, code=totp.at(door.now))
    assert (await door.signing_in.check(given, HERE, needs_code=True)).name == "eve"


async def test_an_unknown_name_costs_the_same_check_as_a_wrong_password(door):
    """One argon2 verification each, at the same cost: the clock tells nobody who is an admin."""
    for name in ("eve", "nobody", "mallory", ""):
        door.hasher.checked.clear()
        assert await door.try_(name, "wrong, but long") == "wrong"
        [checked] = door.hasher.checked
        assert checked.startswith("$argon2id$v=19$m=8,t=1,p=1$")
    written = await door.written()
    assert {who for who, _ in written} == {"playground:eve", "playground:somebody"}
    assert {did for _, did in written} == {"sign-in: refused"}


async def test_an_admin_without_a_password_is_let_in_by_none(door):
    await door.store.run(admins.add, "newcomer", "viewer", NOON)
    for password in ("", "x", GOOD):
        assert await door.try_("newcomer", password) == "wrong"
    assert len(door.hasher.checked) == 3


async def test_who_was_removed_is_not_let_in_with_the_old_password(door):
    await door.store.run(admins.add, "another", "owner", NOON)
    eve = await door.store.run(admins.named, "eve")
    await door.store.run(admins.remove, eve, NOON)
    assert await door.try_() == "wrong"


async def test_the_eleventh_try_in_15_minutes_is_refused_even_with_the_right_password(door):
    for _ in range(10):
        assert await door.try_(password="wrong, but long") == "wrong"
    door.hasher.checked.clear()
    for _ in range(5):
        assert await door.try_() == "too many"
    assert door.hasher.checked == []
    assert [did for _, did in await door.written()].count("sign-in: too many tries") == 1
    door.now += timedelta(minutes=14, seconds=59)
    assert await door.try_() == "too many"
    door.now += timedelta(seconds=1)
    assert (await door.try_()).name == "eve"


async def test_a_stranger_elsewhere_does_not_lock_the_owner_out(door):
    for _ in range(30):
        await door.try_(password="wrong, but long", address=ELSEWHERE)
    assert (await door.try_(address=HERE)).name == "eve"


async def test_strangers_do_not_fill_the_audit(door):
    """It is never pruned, and every look at it walks the whole chain (S-24); the log has each try."""
    for n in range(MOST_WRITTEN + 50):
        assert await door.try_("nobody", address=f"198.51.{n // 10}.1") == "wrong"
    written = [did for _, did in await door.written()]
    assert written.count("sign-in: more refused than are listed here") == 1
    n_rows = await door.store.run(lambda db: db.execute("SELECT count(*) FROM audit").fetchone()[0])
    assert n_rows == MOST_WRITTEN + 1
    assert (await door.try_()).name == "eve"
    assert (await door.written())[0] == ("playground:eve", "sign-in: by password")


async def test_names_are_not_tried_one_after_the_other_from_one_address(door):
    outcomes = [await door.try_(f"name{n}", address=ELSEWHERE) for n in range(105)]
    assert outcomes.count("wrong") == 100 and outcomes.count("too many") == 5


async def test_getting_in_forgives_the_tries_before(door):
    for _ in range(3):
        for _ in range(9):
            await door.try_(password="wrong, but long")
        assert (await door.try_()).name == "eve"


async def test_a_clock_that_goes_back_locks_nobody_out_for_longer(door):
    for _ in range(10):
        await door.try_(password="wrong, but long")
    door.now -= timedelta(days=1)
    assert (await door.try_()).name == "eve"


def test_tries_are_remembered_of_so_many_only():
    tries = Tries(1, timedelta(minutes=15), most_keys=100)
    for n in range(10_000):
        assert tries.take(f"key {n}", NOON) == "ok"
    assert len(tries._tries) == 100


async def test_with_a_second_factor_the_password_alone_opens_nothing(door):
    totp, _ = await door.with_second_factor()
    for code in ("", "000000", "abcdef", "1" * 10_000, "\ud800"):
        assert await door.try_(code=code) == "wrong"
    assert (await door.try_(code=totp.at(NOON))).name == "eve"


async def test_a_code_without_the_password_opens_nothing_and_is_not_spent(door):
    totp, codes = await door.with_second_factor()
    assert await door.try_(password="wrong, but long", code=totp.at(NOON)) == "wrong"
    assert await door.try_(password="wrong, but long", code=codes[0]) == "wrong"
    assert (await door.try_(code=totp.at(NOON))).name == "eve"


async def test_no_code_is_taken_twice_nor_one_from_before_it(door):
    totp, _ = await door.with_second_factor()
    before = totp.at(NOON - timedelta(seconds=30))
    assert (await door.try_(code=totp.at(NOON))).name == "eve"
    assert await door.try_(code=totp.at(NOON)) == "wrong"
    assert await door.try_(code=before) == "wrong"
    door.now += timedelta(seconds=30)
    assert (await door.try_(code=totp.at(door.now))).name == "eve"


async def test_of_twenty_who_show_the_same_code_at_once_one_comes_in(door):
    totp, codes = await door.with_second_factor()
    for code in (totp.at(NOON), codes[0]):
        tries = [door.try_(code=code, address=f"192.0.2.{n}") for n in range(20)]
        outcomes = await asyncio.gather(*tries)
        assert len([one for one in outcomes if one != "wrong"]) == 1
        door.now += timedelta(minutes=15)


async def test_each_recovery_code_opens_once_in_any_spelling(door):
    _, codes = await door.with_second_factor()
    assert len(set(codes)) == 10 and all(len(normal(code)) == 24 for code in codes)
    assert (await door.try_(code=codes[3].lower().replace("-", " "))).name == "eve"
    assert await door.try_(code=codes[3]) == "wrong"
    eve = await door.store.run(admins.named, "eve")
    assert await door.store.run(admins.n_recovery_codes, eve.admin_id) == 9


def test_a_code_is_good_for_its_step_and_one_on_either_side():
    secret = pyotp.random_base32()
    code = pyotp.TOTP(secret).at(NOON)
    good = [late for late in range(-90, 120, 10) if step_of(secret, code, NOON + timedelta(seconds=late)) is not None]
    assert good == list(range(-30, 60, 10))


async def test_a_password_that_is_too_easy_is_never_hashed(door):
    with pytest.raises(BadInput, match="12 or more"):
        await door.passwords.hashed("short", of="eve")
    with pytest.raises(BadInput, match="common"):
        await door.passwords.hashed("password1234", of="eve")


async def test_passwords_are_hashed_with_argon2id_at_the_librarys_cost_or_more():
    stored = await Passwords().hashed(GOOD, of="eve")
    cost = PasswordHasher()
    assert stored.startswith(f"$argon2id$v=19$m={max(cost.memory_cost, 65536)},t={max(cost.time_cost, 3)},p=")


async def test_a_hash_made_with_less_work_is_renewed_at_the_next_sign_in(door):
    stronger = PasswordHasher(time_cost=2, memory_cost=16, parallelism=1)
    later = SigningIn(door.store, lambda: door.now, Passwords(stronger))
    for _ in range(2):
        assert isinstance(await later.check(Credentials(name="eve", password=GOOD), HERE), Admin)
        stored = await door.store.run(admins.secrets_of, "eve")
        assert stored.password_hash.startswith("$argon2id$v=19$m=16,t=2,p=1$")


async def test_more_sign_ins_at_once_than_can_wait_are_turned_away(door):
    found = await asyncio.gather(*(door.passwords.is_right("", "x") for _ in range(40)), return_exceptions=True)
    assert sum(isinstance(one, Busy) for one in found) == 20
    assert await door.passwords.is_right("", "x") is False


async def test_what_people_type_is_in_no_log_and_no_repr(door, caplog):
    caplog.set_level("DEBUG")
    given = Credentials(name="eve", password="typed secret", code="123456")
    assert "typed secret" not in repr(given) and "123456" not in repr(given)
    await door.signing_in.check(given, HERE)
    await door.try_("a password typed as a name", "x")
    stored = "\n".join(await door.store.run(lambda db: list(db.conn.iterdump())))
    for text in ("typed secret", "a password typed as a name"):
        assert text not in caplog.text and text not in stored
