"""Who is let in, who commands, and accounts that become one person."""

from datetime import timedelta

import pytest

from claasbot.domain.conversation import ChatAddress, Commanded, Said
from claasbot.services.clock import utc_now
from claasbot.settings import Settings
from claasbot.storage import accounts, erasure, joining, people, versions
from claasbot.storage.rows import change, one, rows
from tests.services.world import World, running_world


@pytest.fixture
async def world(tmp_path, settings, store):
    """A platform of strangers; codes are used by somebody who is let in."""
    async with running_world(tmp_path, settings, store, "chatter") as world:
        yield world


async def code_of(world: World, account: str) -> str:
    world_said = len(world.chat.shown)
    await world.chat.post(
        Said(address=world.chat.chat_of(account), account=account, update_key=account, text="Hi", display_name=account)
    )
    return (await world.chat.wait_for(lambda shown: shown.kind == "notice", since=world_said)).reply.data["code"]


async def let_in(world: World, account: str) -> None:
    """As the host does at the machine."""
    code = await code_of(world, account)
    await world.cycle.admitting.let_in(code, "console:owner")


async def test_a_stranger_gets_a_code_and_no_answer_and_is_not_kept(world):
    assert len(await code_of(world, "ada")) == 8
    assert world.server.seen.requests == []
    assert await world.store.run(rows, "SELECT * FROM person") == []
    assert (await world.store.run(one, "SELECT event_json FROM inbox"))["event_json"] == ""


async def test_a_stranger_keeps_the_code_while_it_lasts_and_three_wait_at_most(world):
    codes = {await code_of(world, account) for account in ("a", "b", "c")}
    assert len(codes) == 3
    await world.chat.post(Said(address=world.chat.chat_of("d"), account="d", update_key="d", text="Hi"))
    full = await world.chat.wait_for(lambda shown: "too many" in shown.text)
    assert "code" not in full.reply.data
    await world.chat.post(Said(address=world.chat.chat_of("a"), account="a", update_key="a2", text="Hi"))
    again = await world.chat.wait_for(lambda shown: shown.address.chat == "a", since=4)
    assert again.reply.data["code"] in codes


async def test_in_a_group_a_stranger_hears_nothing(world):
    address = world.chat.chat_of("team")
    await world.chat.post(Said(address=address, account="eve", update_key="1", text="Hi", is_group=True))
    await world.cycle.settled()
    assert world.chat.shown == []


async def test_the_first_who_is_let_in_is_admin_and_lets_others_in(world):
    await let_in(world, "ada")
    code = await code_of(world, "bob")
    told = await world.chat.command("ada", "pair", code)
    assert "bob" in told.text
    assert "welcome" in world.chat.said_to("bob", "notice")[-1].text
    assert (await world.chat.say("bob", "What is rain?")).version_name == "base"
    refused = await world.chat.command("bob", "users")
    assert "admins" in refused.text


@pytest.mark.parametrize("command", ["users", "pair", "pause", "resume", "rollback", "block", "unblock", "health"])
async def test_admin_commands_are_for_admins(world, command):
    await let_in(world, "ada")
    await let_in(world, "bob")
    assert "for the admins" in (await world.chat.command("bob", command, "p1")).text


async def test_admins_see_and_steer(world):
    await let_in(world, "ada")
    await world.taught("ada")
    assert "p1 ada" in (await world.chat.command("ada", "users")).text
    assert "store: ok" in (await world.chat.command("ada", "health")).text
    assert "paused" in (await world.chat.command("ada", "pause")).text
    assert not await world.cycle.is_learning()
    await world.chat.command("ada", "resume")
    assert await world.cycle.is_learning()
    assert "base model answers p1" in (await world.chat.command("ada", "rollback", "p1")).text
    did = [row["did"] for row in await world.store.run(rows, "SELECT did FROM audit WHERE who = 'chatter:ada'")]
    assert did == ["learning: paused", "learning: on", "rolled p1 back to base"]


async def test_wrong_codes_and_people_get_one_clear_sentence(world):
    await let_in(world, "ada")
    assert "Nobody has the code" in (await world.chat.command("ada", "pair", "XXXX")).text
    assert "/rollback p3" in (await world.chat.command("ada", "rollback", "three")).text
    assert "p99" in (await world.chat.command("ada", "rollback", "p99")).text
    assert "Nobody has the code" in (await world.chat.command("ada", "link", "XXXX")).text


async def test_an_undo_that_a_crash_cut_is_not_done_twice(world):
    await let_in(world, "ada")
    await world.taught("ada")
    await world.taught("ada", "In verse.")
    await world.chat.command("ada", "undo", update_key="once")
    await world.cycle.settled()
    await world.store.run(  # as a crash would leave it: done, and not yet marked as handled
        lambda db: db.execute(
            "UPDATE inbox SET handled_at = NULL, event_json = ? WHERE update_key = 'once'",
            [
                '{"kind": "Commanded", "address": {"platform": "chatter", "bot_account": "console", "chat": "ada"},'
                ' "account": "ada", "display_name": "", "update_key": "once", "at": null, "is_group": false,'
                ' "roles": [], "is_interaction": false, "command": "undo", "argument": "", "message_key": null,'
                ' "own_key": null}'
            ],
        )
    )
    world.store.stages.inbox.set()
    await world.chat.wait_for(lambda shown: "interrupted" in shown.text)
    assert (await world.store.run(versions.current, 1)).name == "p1.v1"


async def test_two_accounts_become_one_person(world):
    await let_in(world, "ada")
    await world.taught("ada")
    await let_in(world, "ada-at-work")
    offer = await world.chat.command("ada", "link")
    code = offer.text.split("/link ")[1][:8]
    joined = await world.chat.command("ada-at-work", "link", code)
    assert "p1" in joined.text
    assert (await world.chat.say("ada-at-work", "What is rain?")).version_name == "p1.v1"
    assert await world.store.run(people.known, "chatter", "ada") == await world.store.run(
        people.known, "chatter", "ada-at-work"
    )
    assert "code" in (await world.chat.command("ada", "link", code)).text  # it worked once


async def test_who_taught_from_both_accounts_chooses_and_may_learn_the_rest_again(world):
    await let_in(world, "ada")
    await let_in(world, "work")
    await world.taught("ada")
    await world.taught("work", "In verse.")
    code = (await world.chat.command("ada", "link")).text.split("/link ")[1][:8]
    which = await world.chat.command("work", "link", code)
    assert [button.label for button in which.buttons] == ["Keep p2.v1", "Keep p1.v1"]
    joined = await world.chat.press("work", which.buttons[1].action)
    assert "1 lessons" in joined.text
    assert not (world.data / "adapters/p2").exists()
    assert (await world.chat.say("work", "What is rain?")).version_name == "p1.v1"
    again = await world.chat.press("work", joined.buttons[0].action)
    assert "1 lessons again" in again.text
    await world.cycle.settled()
    assert (await world.store.run(versions.current, 1)).name == "p1.v2"
    states = {row["state"] for row in await world.store.run(rows, "SELECT state FROM experience")}
    assert states == {"consumed"}


async def test_an_account_that_is_being_erased_is_joined_with_nobody(world):
    await let_in(world, "ada")
    await let_in(world, "work")
    code = (await world.chat.command("ada", "link")).text.split("/link ")[1][:8]
    await world.store.run(people.block, 1)
    assert "being deleted" in (await world.chat.command("work", "link", code)).text
    assert [row["id"] for row in await world.store.run(rows, "SELECT id FROM person ORDER BY id")] == [1, 2]
    assert len(await world.store.run(rows, "SELECT * FROM account WHERE person_id = 2")) == 1


async def test_what_was_left_behind_can_be_learned_again_by_its_owner_alone(world):
    for account, said in (("ada", "Shorter."), ("work", "In verse.")):
        await let_in(world, account)
        await world.taught(account, said)
    await let_in(world, "eve")
    code = (await world.chat.command("ada", "link")).text.split("/link ")[1][:8]
    joined = await world.chat.press("work", f"link:{code}:there")
    action = joined.buttons[0].action
    assert "theirs to decide" in (await world.chat.press("eve", action)).text
    assert "1 lessons again" in (await world.chat.press("work", action)).text


async def test_an_answer_that_was_being_written_while_accounts_were_joined_does_not_stop_the_erasure(world):
    """Its row is written for the person who is no more, in a conversation that has gone to the other one."""
    for account in ("ada", "work"):
        await let_in(world, account)
        await world.taught(account)
    await world.store.run(joining.join, 1, 2, world.cycle.clock())
    await world.store.run(
        change,
        "UPDATE completion SET person_id = 2, version_id = (SELECT id FROM adapter_version WHERE person_id = 2)"
        " WHERE conversation_id = (SELECT max(id) FROM conversation)",
    )
    await world.cycle.erasing.resume()
    assert await world.store.run(erasure.unfinished) == []
    assert await world.store.run(rows, "SELECT * FROM person WHERE id = 2") == []
    left = await world.store.run(rows, "SELECT DISTINCT person_id FROM completion")
    assert left == [{"person_id": 1}]


async def test_a_code_is_not_given_in_a_group(world):
    await let_in(world, "ada")
    await world.chat.post(
        Commanded(address=world.chat.chat_of("team"), account="ada", update_key="l", command="link", is_group=True)
    )
    notice = await world.chat.wait_for(lambda shown: shown.address.chat == "team")
    assert "private" in notice.text


async def test_whoami_names_what_the_hosts_lists_need(world):
    await let_in(world, "ada")
    assert "chatter:ada" in (await world.chat.command("ada", "whoami")).text


async def test_usage_counts_answers_tokens_and_lessons(world):
    await let_in(world, "ada")
    await world.taught("ada")
    used = (await world.chat.command("ada", "usage")).text
    assert used.startswith("2 answers")
    assert "1 lesson in" in used


async def test_who_is_blocked_hears_nothing_until_they_are_let_in_again(world):
    await let_in(world, "ada")
    await let_in(world, "bob")
    assert "/unblock p2" in (await world.chat.command("ada", "block", "p2")).text
    assert "bob (chatter), blocked: base" in (await world.chat.command("ada", "users")).text
    since = len(world.chat.shown)
    await world.chat.post(Said(address=world.chat.chat_of("bob"), account="bob", update_key="b", text="Hello?"))
    await world.cycle.settled()
    assert world.chat.shown[since:] == []
    await world.chat.command("ada", "unblock", "p2")
    assert (await world.chat.say("bob", "Hello?")).version_name == "base"
    assert "bob (chatter): base" in (await world.chat.command("ada", "users")).text
    did = [row["did"] for row in await world.store.run(rows, "SELECT did FROM audit ORDER BY id")]
    assert did[-2:] == ["blocked p2", "let in again p2"]


async def test_nobody_blocks_themselves_and_the_name_must_be_one(world):
    await let_in(world, "ada")
    assert "nobody locks themselves out" in (await world.chat.command("ada", "block", "p1")).text
    assert "/block p3" in (await world.chat.command("ada", "block", "bob")).text
    assert "p9" in (await world.chat.command("ada", "unblock", "p9")).text


async def test_what_an_admin_does_on_the_dashboard_is_written_down(world):
    await let_in(world, "ada")
    await world.taught("ada")
    steering = world.cycle.steering
    assert await steering.undo(1, "playground:admin") == "base"
    await steering.train_now("playground:admin")
    await steering.set_paused(True, "playground:admin")
    found = await world.store.run(rows, "SELECT who, did FROM audit WHERE did NOT LIKE 'let in%' ORDER BY id")
    assert {row["who"] for row in found} == {"playground:admin"}
    assert [row["did"] for row in found] == [
        "rolled p1 back to base",
        "began what waits to be learned",
        "learning: paused",
    ]


async def test_whom_an_admin_elsewhere_lets_in_is_a_guest(world):
    """An admin is made by the host at the machine alone."""
    code = await code_of(world, "mallory")
    stranger, _ = await world.cycle.admitting.let_in(code, "telegram:7")
    assert not stranger.is_admin
    assert "for the admins" in (await world.chat.command("mallory", "users")).text


async def test_where_the_host_names_admins_nobody_who_is_let_in_becomes_one(tmp_path, store):
    settings = Settings(access={"mode": "pairing", "admins": ["chatter:host"]})
    async with running_world(tmp_path, settings, store, "chatter") as world:
        code = await code_of(world, "mallory")
        assert "admin" not in (await world.chat.command("host", "pair", code)).text
        assert "for the admins" in (await world.chat.command("mallory", "users")).text


async def test_the_host_is_told_that_the_first_one_is_an_admin(tmp_path, settings, store):
    async with running_world(tmp_path, settings, store) as world:  # at home
        for account, is_admin in (("7", True), ("8", False)):
            there = ChatAddress(platform="telegram", bot_account="42", chat=account)
            code = await store.run(
                accounts.ask_to_pair, there, account, "Eve", utc_now(), lasts=timedelta(hours=1), max_pending=3
            )
            told = (await world.chat.command("ada", "pair", code)).text
            assert told.startswith("Eve (telegram) is let in")
            assert ("as an admin" in told) is is_admin


async def test_letting_in_somebody_who_was_never_blocked_changes_nothing(world):
    await let_in(world, "ada")
    await let_in(world, "bob")
    await world.chat.command("ada", "block", "p2")
    assert (await world.store.run(accounts.role_of, "chatter", "bob")) == "blocked"
    for person_id in (1, 2):
        await world.cycle.steering.set_blocked(person_id, False, "console:host")
    roles = [await world.store.run(accounts.role_of, "chatter", account) for account in ("ada", "bob")]
    assert roles == ["admin", "allowed"]
