"""Who may talk to the bot, and who steers it."""

import pytest

from claasbot.domain.access import AccessRules, Visit, entry, makes_admin

STRANGER = Visit(platform="telegram", account="7", room="7", is_group=False)
IN_GROUP = Visit(platform="telegram", account="7", room="-5", is_group=True)


def test_a_stranger_is_offered_a_code_in_private_and_nothing_in_a_group():
    assert entry(STRANGER, "", AccessRules()) == "pairing"
    assert entry(IN_GROUP, "", AccessRules()) == "out"


def test_without_pairing_a_stranger_is_out():
    assert entry(STRANGER, "", AccessRules(mode="listed")) == "out"


def test_an_open_bot_lets_everybody_in_as_a_guest():
    assert entry(STRANGER, "", AccessRules(mode="open")) == "guest"


@pytest.mark.parametrize(
    "rules",
    [
        AccessRules(mode="listed", accounts=frozenset({"telegram:7"})),
        AccessRules(mode="listed", chats=frozenset({"telegram:-5"})),
        AccessRules(mode="listed", roles=frozenset({"telegram:cook"})),
    ],
)
def test_accounts_chats_and_roles_can_be_listed(rules):
    visit = Visit(platform="telegram", account="7", room="-5", is_group=True, roles=("cook",))
    assert entry(visit, "", rules) == "guest"


def test_a_name_of_another_platform_opens_nothing():
    assert entry(STRANGER, "", AccessRules(mode="listed", accounts=frozenset({"discord:7"}))) == "out"


def test_blocking_wins_over_every_welcome():
    rules = AccessRules(mode="open", accounts=frozenset({"telegram:7"}), blocked=frozenset({"telegram:7"}))
    assert entry(STRANGER, "allowed", rules) == "out"
    assert entry(STRANGER, "blocked", AccessRules(mode="open")) == "out"


def test_the_hosts_own_admins_cannot_be_locked_out():
    assert entry(STRANGER, "blocked", AccessRules(admins=frozenset({"telegram:7"}))) == "admin"


def test_who_sits_at_the_machine_is_an_admin():
    assert entry(STRANGER, "", AccessRules(mode="listed", at_home=frozenset({"telegram"}))) == "admin"


def test_paired_people_keep_their_role():
    assert [entry(STRANGER, role, AccessRules()) for role in ("allowed", "admin")] == ["guest", "admin"]


HOME = AccessRules(at_home=frozenset({"console"}))


@pytest.mark.parametrize(
    ("who", "rules", "has_admin", "expected"),
    [
        ("console:owner", HOME, False, True),
        ("console:owner", HOME, True, False),
        ("telegram:7", HOME, False, False),
        ("console:owner", AccessRules(at_home=HOME.at_home, admins=frozenset({"telegram:9"})), False, False),
    ],
)
def test_only_the_first_whom_the_host_lets_in_becomes_an_admin_and_only_where_none_is_named(
    who, rules, has_admin, expected
):
    assert makes_admin(who, rules, has_admin=has_admin) is expected
