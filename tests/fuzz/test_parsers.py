"""S-03: whatever bytes, JSON or files come, a parser answers with a value or with its own error, never with another.

`make fuzz` gives each of them ten thousand examples.
"""

from __future__ import annotations

import asyncio
import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import discord
import pytest
import telegram
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from claasbot import adapter_files, tensor_check
from claasbot import settings as our_settings
from claasbot.chat.discord import events as discord_events
from claasbot.chat.discord.custom_ids import action_of, form_of
from claasbot.chat.discord.formatting import pieces
from claasbot.chat.discord.whereabouts import Where
from claasbot.chat.telegram.addressing import Identity
from claasbot.chat.telegram.formatting import rendered
from claasbot.chat.telegram.intake import Intake
from claasbot.chat.telegram.memory import Memory
from claasbot.domain.conversation import ChatAddress, ChatEvent
from claasbot.domain.feedback import MAX_FEEDBACK_CHARS, Reactions, checked_text, signal_of
from claasbot.domain.remark import is_reason, is_remark
from claasbot.errors import AdapterDamaged, BadInput, SettingsError
from claasbot.services.feedback_commands import number
from claasbot.web.bodies import parsed
from claasbot.web.events import AnyEvent, Sender
from claasbot.web.webhook import Update
from tests.chat.telegram.fake_bot_api import FakeBotApi
from tests.faults.conftest import IS_FULL, scaled

often = settings(
    max_examples=scaled(10_000, 60),
    deadline=None,
    derandomize=not IS_FULL,
    database=None,
    suppress_health_check=list(HealthCheck),
)
texts = st.text(st.characters(), max_size=80)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
ADDRESS = ChatAddress(platform="fuzz", bot_account="1", chat="1")
SENDER = Sender(address=ADDRESS, account="1", display_name="x", at=None)  # type: ignore[arg-type]


# --- the API ---


@often
@given(st.binary(max_size=200) | values.map(lambda found: json.dumps(found).encode()))
def test_bytes_become_an_event_or_one_line(body: bytes) -> None:
    _event_or_line(body)


@often
@given(
    st.fixed_dictionaries(
        {
            "kind": st.sampled_from(["said", "commanded", "pressed", "reacted", "stopped"]) | values,
            "update_key": values | texts,
        },
        optional=dict.fromkeys(
            ["text", "reply_to", "command", "argument", "message_key", "action", "reaction", "removed"], values | texts
        ),
    )
)
def test_json_that_is_nearly_an_event_becomes_one_or_one_line(facts: dict[str, Any]) -> None:
    _event_or_line(json.dumps(facts).encode())


def _event_or_line(body: bytes) -> None:
    try:
        event = parsed(body, AnyEvent).root.event(SENDER)
    except BadInput as error:
        assert "\n" not in str(error) and 0 < len(str(error)) < 400
    else:
        assert event.update_key and event.account == "1"


# --- Telegram ---


BOT = telegram.Bot(f"42:{'a' * 35}")
UPDATES: list[dict[str, Any]] = []
"""Real ones, to be damaged."""


@pytest.fixture(scope="module", autouse=True)
def real_updates() -> None:
    async def collect() -> None:
        fake = FakeBotApi()
        await fake.start()
        ada = fake.person("Ada")
        chat = fake.private_chat(ada)
        said = ada.say(chat, "/ask@bot What is rain?")
        ada.edit(said, "What is snow?")
        ada.attach(chat, "notes.md", b"x", "Read this")
        ada.react(said, "👎")
        ada.block(chat)
        UPDATES.extend(copy.deepcopy(list(fake.bot.updates.pending)))
        await fake.stop()

    asyncio.run(collect())


def test_there_are_real_updates_to_damage() -> None:
    kinds = {kind for update in UPDATES for kind in update if kind != "update_id"}
    assert kinds >= {"message", "edited_message"}, kinds


@often
@given(st.data())
def test_a_damaged_update_is_skipped_by_its_number(data: st.DataObject) -> None:
    update = copy.deepcopy(data.draw(st.sampled_from(UPDATES)))
    for _ in range(data.draw(st.integers(1, 4))):
        _damage(update, data)
    _take(update)


@often
@given(st.dictionaries(st.sampled_from(["update_id", "message", "callback_query", "message_reaction"]) | texts, values))
def test_json_of_any_shape_is_no_update(update: dict[str, Any]) -> None:
    _take(update)


@often
@given(st.binary(max_size=100))
def test_bytes_to_a_webhook_are_an_object_or_one_line(body: bytes) -> None:
    try:
        found = parsed(body, Update).root
    except BadInput as error:
        assert "\n" not in str(error)
    else:
        _take(found)


def _damage(found: Any, data: st.DataObject) -> None:
    """One value, somewhere, is another."""
    while isinstance(found, dict) and found:
        name = data.draw(st.sampled_from(sorted(found)))
        if not isinstance(found[name], dict) or data.draw(st.booleans()):
            found[name] = data.draw(values)
            return
        found = found[name]


def _take(update: dict[str, Any]) -> None:
    accepted: list[ChatEvent] = []

    async def accept(event: ChatEvent) -> None:
        accepted.append(event)

    async def take() -> None:
        intake = Intake(BOT, Memory(), None)
        await intake.take(update, Identity(bot_id=42, username="bot", commands=frozenset({"ask"})), accept)

    asyncio.run(take())
    assert all(isinstance(event.account, str) and event.update_key for event in accepted)


# --- Discord ---


@often
@given(texts, texts, texts, st.integers(0, 2**63), st.booleans())
def test_whatever_is_written_on_discord_becomes_an_event_or_nothing(
    content: str, name: str, file: str, size: int, is_reply: bool
) -> None:
    client = discord.Client(intents=discord.Intents.none())
    user = {"id": "7", "username": name, "discriminator": "0", "global_name": name, "avatar": None}
    state = client._connection
    channel = discord.DMChannel(me=None, state=state, data={"id": "1", "type": 1, "recipients": [user]})  # type: ignore[arg-type]
    facts: dict[str, Any] = {
        **{"id": "9", "channel_id": "1", "type": 19 if is_reply else 0, "content": content, "author": user},
        **{"tts": False, "mention_everyone": False, "pinned": False, "edited_timestamp": None, "flags": 0},
        **{
            "mentions": [],
            "mention_roles": [],
            "embeds": [],
            "components": [],
            "timestamp": "2026-11-20T12:00:00+00:00",
        },
        "attachments": [{"id": "3", "filename": file, "size": size, "url": file, "proxy_url": file}],
    }
    message = discord.Message(state=state, channel=channel, data=facts)  # type: ignore[arg-type]
    account = discord_events.Account(user_id=42, commands=frozenset({"ask"}))
    event = discord_events.said(message, Where(address=ADDRESS, is_group=False), account)
    assert event is None or (event.account, event.display_name) == ("7", name or "")


@often
@given(texts)
def test_a_button_of_another_bot_is_no_action_of_ours(custom_id: str) -> None:
    for spelled in (custom_id, f"claasbot:{custom_id}", f"c:{custom_id}"):
        assert isinstance(action_of(spelled), str | None)
        assert isinstance(form_of(spelled), tuple | None)


# --- feedback, numbers and formatting ---


@often
@given(st.sampled_from(["text", "correction", "thumbs_up", "thumbs_down"]), st.text(max_size=3_000))
def test_feedback_is_words_within_the_limit_or_one_line(kind: Any, text: str) -> None:
    assert isinstance(is_remark(text), bool) and isinstance(is_reason(text), bool)
    assert Reactions().kind_of(text) in (None, "thumbs_up", "thumbs_down")
    try:
        words = checked_text(kind, text)
    except BadInput as error:
        assert "\n" not in str(error)
    else:
        assert len(words) <= MAX_FEEDBACK_CHARS
        assert signal_of(kind, words).reason


@often
@given(texts | st.integers().map(str))
def test_the_number_in_a_button_fits_the_store(text: str) -> None:
    try:
        assert 0 <= number(text) < 2**63
    except BadInput:
        assert not (text.isdecimal() and text.isascii() and len(text) < 18)


@often
@given(st.text(st.sampled_from("`*_|[]()<>!#-~\\\n \"'&;:/.aé😀\ufe0f\u202e\x00"), max_size=300))
def test_any_markdown_is_shown_somehow(text: str) -> None:
    assert all(piece.text for piece in rendered(text))
    assert "".join(pieces(text)) or not text.strip()


# --- files ---


@often
@given(st.binary(max_size=300) | values.map(lambda found: json.dumps(found).encode()))
def test_a_manifest_is_ours_or_damaged(manifest: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p1.v1"
        path.mkdir()
        (path / adapter_files.MANIFEST).write_bytes(manifest)
        with pytest.raises(AdapterDamaged):
            adapter_files.verify(path)


@often
@given(
    st.integers(0, 2**64 - 1), st.binary(max_size=200) | values.map(lambda found: json.dumps(found).encode()), values
)
def test_weights_are_checked_or_damaged(length: int, header: bytes, config: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p1.v1"
        path.mkdir()
        said = len(header) if length % 3 else length
        (path / adapter_files.WEIGHTS).write_bytes(said.to_bytes(8, "little") + header)
        (path / "adapter_config.json").write_text(json.dumps(config if length % 2 else CONFIG))
        with pytest.raises(AdapterDamaged):
            tensor_check.check(path, weights_only=True)


SECTIONS = st.sampled_from(["web", "chat", "server", "telegram", "data"])


def _nearly_toml(found: dict[str, Any]) -> bytes:
    return "\n".join(f"{json.dumps(name)} = {json.dumps(value)}" for name, value in found.items()).encode()


CONFIG = {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "target_modules": ["q_proj"], "bias": "none"}


@often
@given(st.binary(max_size=200) | st.dictionaries(texts | SECTIONS, values, max_size=4).map(_nearly_toml))
def test_a_settings_file_is_read_or_refused_in_one_line(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "claasbot.toml"
        path.write_bytes(content)
        try:
            our_settings.load(path)
        except SettingsError as error:
            assert str(error)
