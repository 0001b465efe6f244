"""Messages on their way to Discord: into a channel, or as the answer to an interaction. Pings nobody, ever."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import aiohttp
import discord

from claasbot.chat.discord.custom_ids import custom_id_of
from claasbot.chat.discord.formatting import pieces
from claasbot.chat.discord.pace import Pace
from claasbot.domain.conversation import Button, Reply
from claasbot.errors import ChatError, ChatGone

log = logging.getLogger(__name__)
Result = TypeVar("Result")

NETWORK_ERRORS = (OSError, aiohttp.ClientError, TimeoutError)
TROUBLES = (discord.HTTPException, discord.RateLimited, *NETWORK_ERRORS)
"""Everything that a request to Discord may end in."""

_IN_PRIVATE = "That is for you alone: use the slash command, or write to me directly."
_SAID_ALONE = "I say that to you alone."
_MAX_BUTTONS = 25
_MAX_LABEL = 80
_N_TRIES = 5
_UNKNOWN_CHANNEL = 10003
_INTERACTION_GONE = frozenset({10015, 10062, 50027})
"""Unknown webhook, unknown interaction, invalid webhook token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One message of a reply."""

    text: str
    buttons: tuple[Button, ...] = ()
    file_name: str = ""
    file_path: str = ""


def pieces_of(reply: Reply) -> tuple[Piece, ...]:
    """At least one; buttons and file hang on the last."""
    name, path = reply.data.get("file_name"), reply.data.get("file_path")
    file_name, file_path = (name, path) if isinstance(name, str) and isinstance(path, str) else ("", "")
    *first, last = pieces(reply.text) or ("" if file_name else "…",)
    end = Piece(text=last, buttons=reply.buttons, file_name=file_name, file_path=file_path)
    return (*(Piece(text=one) for one in first), end)


class Place(Protocol):
    """Where the messages of one reply go. Raises what discord.py raises."""

    async def post(self, piece: Piece, nonce: int) -> str:
        """Its key. Discord makes one message of two posts with the same nonce, where nonces exist."""
        ...

    async def edit(self, key: str, piece: Piece) -> None: ...

    async def remove(self, key: str) -> None: ...

    async def show_typing(self) -> None: ...


class ChannelPlace:
    """A channel, thread or private chat; the first message refers to what it answers."""

    def __init__(self, client: discord.Client, channel_id: int, reply_to: int | None) -> None:
        self._channel = client.get_partial_messageable(channel_id)
        self._reply_to = reply_to

    async def post(self, piece: Piece, nonce: int) -> str:
        options = _options(piece) | {"nonce": nonce}
        if self._reply_to is not None:
            options["reference"] = discord.MessageReference(
                message_id=self._reply_to, channel_id=self._channel.id, fail_if_not_exists=False
            )
        message = await self._channel.send(piece.text or None, suppress_embeds=True, **options)
        self._reply_to = None
        key = str(message.id)
        if message.content.strip() != piece.text.strip():  # an earlier try did arrive, with an earlier text
            await self.edit(key, piece)
        return key

    async def edit(self, key: str, piece: Piece) -> None:
        await self._channel.get_partial_message(int(key)).edit(content=piece.text, **_edit_options(piece))

    async def remove(self, key: str) -> None:
        await self._channel.get_partial_message(int(key)).delete()

    async def show_typing(self) -> None:
        await self._channel.typing()


class PublicPlace(ChannelPlace):
    """A channel where others read along, for a reply that is one person's alone: it says no more than where to ask."""

    _said_as: str | None = None

    async def post(self, piece: Piece, nonce: int) -> str:
        if self._said_as is None:
            self._said_as = await super().post(Piece(text=_IN_PRIVATE), nonce)
        return self._said_as

    async def edit(self, key: str, piece: Piece) -> None:
        """Nothing of it is shown here."""


@dataclass(slots=True, kw_only=True)
class OpenInteraction:
    """An interaction that was acknowledged and can be followed up."""

    interaction: discord.Interaction
    is_ephemeral: bool
    since_s: float
    is_answered: bool = False
    """Discord no longer shows that the bot is thinking."""


class InteractionPlace:
    """The follow-ups of an interaction; once Discord takes no more of them, the channel."""

    def __init__(self, opened: OpenInteraction, channel: ChannelPlace, *, is_personal: bool) -> None:
        self._opened = opened
        self._interaction = opened.interaction
        self._channel = channel
        self._is_personal = is_personal

    async def post(self, piece: Piece, nonce: int) -> str:
        async def follow_up() -> str:
            if self._is_personal and not self._opened.is_ephemeral and not self._opened.is_answered:
                await self._follow_up(Piece(text=_SAID_ALONE))  # the first follow-up is as public as the question
            return await self._follow_up(piece)

        return await self._or(follow_up, lambda: self._channel.post(piece, nonce))

    async def _follow_up(self, piece: Piece) -> str:
        message = await self._interaction.followup.send(
            piece.text or discord.utils.MISSING,
            wait=True,
            ephemeral=self._opened.is_ephemeral or self._is_personal,
            suppress_embeds=True,
            **_options(piece),
        )
        self._opened.is_answered = True
        return str(message.id)

    async def edit(self, key: str, piece: Piece) -> None:
        async def edit() -> None:
            await self._interaction.followup.edit_message(int(key), content=piece.text, **_edit_options(piece))

        await self._or(edit, lambda: self._channel.edit(key, piece))

    async def remove(self, key: str) -> None:
        await self._or(lambda: self._interaction.followup.delete_message(int(key)), lambda: self._channel.remove(key))

    async def show_typing(self) -> None:
        """Discord itself says that the bot is thinking."""

    async def _or(self, act: Callable[[], Awaitable[Result]], in_channel: Callable[[], Awaitable[Result]]) -> Result:
        try:
            return await act()
        except discord.HTTPException as error:
            if error.code not in _INTERACTION_GONE:
                raise
        return await in_channel()


async def deliver(place: Place, wanted: tuple[Piece, ...], pace: Pace) -> tuple[str, ...]:
    """Post every piece of a notice, in order. Raises what discord.py raises."""
    keys = []
    for piece in wanted:

        async def post(piece: Piece = piece, nonce: int = new_nonce()) -> str:
            return await place.post(piece, nonce)

        keys.append(await insist(post, pace.retry_s, pace.notice_s))
    return tuple(keys)


async def insist(act: Callable[[], Awaitable[Result]], retry_s: float, longest_pause_s: float = float("inf")) -> Result:
    """Try again what may pass: a rate limit as long as Discord says, an outage a few times.

    `retry_s`: the first pause after an outage; each one doubles. A rate limit over `longest_pause_s` is raised.
    """
    for attempt in range(_N_TRIES):
        try:
            return await act()
        except discord.RateLimited as error:
            if attempt == _N_TRIES - 1 or error.retry_after > longest_pause_s:
                raise
            await asyncio.sleep(error.retry_after)
        except (discord.HTTPException, *NETWORK_ERRORS) as error:
            may_pass = not isinstance(error, discord.HTTPException) or error.status == 429 or error.status >= 500
            if attempt == _N_TRIES - 1 or not may_pass:
                raise
            await asyncio.sleep(retry_s * 2**attempt)
    raise AssertionError("unreachable")


def new_nonce() -> int:
    return secrets.randbits(63)


@contextmanager
def as_chat_errors() -> Iterator[None]:
    """What discord.py raises, as ours: the value and the next action, and no text of a message."""
    try:
        yield
    except (discord.Forbidden, discord.NotFound) as error:
        if isinstance(error, discord.NotFound) and error.code != _UNKNOWN_CHANNEL:
            raise ChatError(f"Discord knows no such thing (code {error.code}); it was deleted meanwhile") from error
        raise ChatGone(
            f"Discord refuses this channel (code {error.code}); give the bot View Channel, Send Messages and Read "
            "Message History there, or the person has closed private messages"
        ) from error
    except discord.RateLimited as error:
        raise ChatError(f"Discord asks to wait {error.retry_after:.0f} s; try again then") from error
    except discord.HTTPException as error:
        raise ChatError(f"Discord answered {error.status} (code {error.code}); try again later") from error
    except NETWORK_ERRORS as error:
        raise ChatError(f"Discord cannot be reached ({type(error).__name__}); try again later") from error


def _options(piece: Piece) -> dict[str, Any]:
    options: dict[str, Any] = {"allowed_mentions": discord.AllowedMentions.none()}
    if piece.buttons:
        options["view"] = _view(piece.buttons)
    if piece.file_name:
        options["file"] = _file(piece)
    return options


def _edit_options(piece: Piece) -> dict[str, Any]:
    options: dict[str, Any] = {"allowed_mentions": discord.AllowedMentions.none()}
    options["view"] = _view(piece.buttons) if piece.buttons else None
    if piece.file_name:
        options["attachments"] = [_file(piece)]
    return options


def _file(piece: Piece) -> discord.File:
    return discord.File(piece.file_path, filename=piece.file_name)


def _view(buttons: tuple[Button, ...]) -> discord.ui.View:
    """Rows of buttons that the library forgets at once: presses are told apart by their ids alone."""
    if len(buttons) > _MAX_BUTTONS:
        raise ChatError(f"{len(buttons)} buttons under one message; Discord shows at most {_MAX_BUTTONS}")
    view = discord.ui.View(timeout=None)
    for button in buttons:
        label = button.label if len(button.label) <= _MAX_LABEL else button.label[: _MAX_LABEL - 1] + "…"
        view.add_item(discord.ui.Button(label=label, custom_id=custom_id_of(button.action)))
    view.stop()  # a finished view is not kept in memory
    return view
