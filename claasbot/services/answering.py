"""From what a person said to the answer they see: converse, choose a version, complete, reply."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial

from sqlite_utils import Database

from claasbot.domain.completion import Completion, CompletionRequest, SentCompletion
from claasbot.domain.conversation import (
    Button,
    ChatAddress,
    Edited,
    Message,
    Part,
    Reply,
    Said,
    Turn,
    joined,
    parts_of,
)
from claasbot.domain.gate import is_mostly_repetition
from claasbot.domain.person import CONSENT_TEXT, Person
from claasbot.errors import AdapterNotLoaded, BadInput, ChatError, ServerBroke, ServerDown
from claasbot.ports import ChatClient, InferenceServer, ReplyWriter, ServerInfo
from claasbot.services.clock import Clock
from claasbot.services.exchanges import ChatRules, Exchange, Exchanges
from claasbot.services.fitting import fitting
from claasbot.services.serving import Policy, Serving
from claasbot.storage import completions, conversations, people
from claasbot.storage.store import Store

log = logging.getLogger(__name__)

CONSENT_CARD = Reply(
    text=CONSENT_TEXT,
    notice=True,
    buttons=(Button(label="Yes, learn from me", action="consent:yes"), Button(label="No", action="consent:no")),
)

SHORTENED = Reply(
    text="This conversation is longer than I can read at once, so I leave its oldest part out. /reset begins anew.",
    notice=True,
)

REPEATING = Reply(text="I am repeating myself; /reset begins anew.", notice=True)


@dataclass(slots=True, kw_only=True)
class _Running:
    """The answer that is being written in a chat."""

    person_id: int
    writer: ReplyWriter
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    has_shown: bool = False
    is_shown: bool = False
    """All of it."""


class Answering:
    """Answers one message at a time per chat; several chats at once."""

    def __init__(self, store: Store, server: InferenceServer, serving: Serving, rules: ChatRules, clock: Clock) -> None:
        self._store = store
        self._server = server
        self._serving = serving
        self._rules = rules
        self._clock = clock
        self.exchanges = Exchanges(rules, clock)
        self._running: dict[ChatAddress, _Running] = {}
        self._unused: dict[int, ReplyWriter] = {}
        """Replies that were opened and of which nothing was shown yet, by update: the next attempt takes them."""
        self._shown: dict[int, tuple[str, ...]] = {}
        """Message keys of completions that were shown and could not be saved as such: never to be shown again."""

    async def answer(
        self, client: ChatClient, person: Person, saids: tuple[Said, ...], inbox_ids: tuple[int, ...]
    ) -> None:
        """Answer a message, or several that one answer serves; `inbox_ids` are their rows, in order.

        Raises BadInput for one that cannot be read and ServerDown to be tried again.
        """
        said = joined(saids)
        files = [file for one in saids for file in await _files(client, one)]
        parts = (*parts_of(saids), *files)
        begin = partial(self.exchanges.begin, person, said, parts, inbox_ids)
        await self._answer_once(client, said, inbox_ids[0], begin)

    async def answer_edited(self, client: ChatClient, person: Person, edited: Edited, inbox_id: int) -> None:
        """Answer the person's last message again, as it reads now. An edit of an older one changes nothing."""
        begin = partial(self.exchanges.begin_edited, person, edited, inbox_id)
        await self._answer_once(client, edited, inbox_id, begin)

    async def _answer_once(
        self, client: ChatClient, event: Said | Edited, inbox_id: int, begin: Callable[[Database], Exchange | None]
    ) -> None:
        """Complete and show; what a crash interrupted is taken up where it stopped."""
        sent = await self._store.run(completions.completion_of_update, inbox_id)
        if sent is None:
            exchange = await self._store.run(begin)
            if exchange is None:
                return
            try:
                await self._complete(client, exchange)
            except BadInput:  # what cannot be read is no part of the conversation
                await self._store.run(conversations.drop_user_turn, inbox_id, self._clock())
                raise
        elif sent.message_key is None:
            await self._show_again(client, event.address, event.message_key or None, sent)

    async def retry(
        self,
        client: ChatClient,
        person: Person,
        address: ChatAddress,
        *,
        reply_to: str | None,
        message_key: str | None,
        inbox_id: int,
    ) -> None:
        """Another answer to the last message; the first one is kept. Raises NotFound, NotYours, BadInput."""
        sent = await self._store.run(completions.completion_of_update, inbox_id)
        if sent is not None:  # completed before a crash, and perhaps not shown
            if sent.message_key is None:
                await self._show_again(client, address, reply_to, sent)
            return
        begin = partial(self.exchanges.begin_retry, person, address, reply_to, message_key, inbox_id)
        await self._complete(client, await self._store.run(begin))

    async def give_up(self, inbox_id: int, reply: Reply) -> bool:
        """Say in the reply that was opened for this update why there is none; False when none was."""
        writer = self._unused.pop(inbox_id, None)
        if writer is None:
            return False
        await writer.finish(reply)
        return True

    def stop(self, address: ChatAddress, person_id: int) -> bool:
        """Stop the answer that is being written there to that person; False when there is none."""
        running = self._running.get(address)
        if running is None or running.person_id != person_id:
            return False
        running.stop.set()
        return True

    def stop_all(self, person_id: int) -> None:
        """Every answer that is being written to that person, wherever."""
        for running in self._running.values():
            if running.person_id == person_id:
                running.stop.set()

    def is_writing(self, address: ChatAddress) -> bool:
        return address in self._running

    async def _complete(self, client: ChatClient, exchange: Exchange) -> None:
        talk, rules = exchange.talk, self._rules
        system_prompt = exchange.room.persona or rules.system_prompt
        messages, is_shortened = await fitting(
            self._server, talk.turns, system_prompt, rules.template_options, rules.sampling.max_tokens
        )
        writer = self._unused.pop(exchange.inbox_id, None) or await client.open_reply(exchange.address, talk.reply_to)
        running = _Running(person_id=exchange.person.person_id, writer=writer)
        self._running[exchange.address] = running
        try:
            info = await self._server.info()
            policy, completion = await self._sample(running, exchange, messages)
            sent = await self._keep(exchange, messages, policy, completion, info)
            keys = await self._show(writer, sent, fell_back=policy.fell_back)
            running.is_shown = True
            await self._save_keys(sent, keys)
        except Exception as error:
            if not running.is_shown:
                await self._broke_off(running, exchange, error)
            raise
        finally:
            del self._running[exchange.address]
        if is_shortened and await self._store.run(conversations.shorten, talk.conversation_id):
            await client.send(exchange.address, SHORTENED)
        if _begins_to_repeat(completion.text, talk.turns):
            await client.send(exchange.address, REPEATING)

    async def _broke_off(self, running: _Running, exchange: Exchange, error: Exception) -> None:
        """An answer of which people have seen a piece is closed; one that nobody saw waits for the next attempt."""
        if isinstance(error, ServerDown) and not running.has_shown:
            self._unused[exchange.inbox_id] = running.writer
        else:
            await running.writer.finish(Reply(text="(This answer broke off.)", notice=True))

    async def _sample(
        self, running: _Running, exchange: Exchange, messages: tuple[Message, ...]
    ) -> tuple[Policy, Completion]:
        for attempt in (1, 2):
            if exchange.may_use_adapter:
                policy = await self._serving.policy_of(exchange.person.person_id)
            else:
                policy = await self._serving.base_policy()
            request = CompletionRequest(
                messages=messages,
                model=policy.model,
                sampling=self._rules.sampling,
                template_options=self._rules.template_options,
            )
            try:
                async with self._serving.holding(policy.version):
                    return policy, await self._stream(request, running, is_shown=exchange.room.is_streaming)
            except AdapterNotLoaded:
                if policy.version is None or attempt == 2:
                    raise
                self._serving.lost(policy.version)
        raise AssertionError("unreachable")

    async def _keep(
        self,
        exchange: Exchange,
        messages: tuple[Message, ...],
        policy: Policy,
        completion: Completion,
        info: ServerInfo,
    ) -> SentCompletion:
        sent = SentCompletion(
            completion_id=0,
            person_id=exchange.person.person_id,
            conversation_id=exchange.talk.conversation_id,
            address=exchange.address,
            message_key=None,
            messages=messages,
            completion=completion,
            sampling=self._rules.sampling,
            template_options=self._rules.template_options,
            template_hash=info.template_hash,
            base_revision=info.base_revision,
            version_id=None if policy.version is None else policy.version.version_id,
            version_name=policy.version_name,
            retry_of=exchange.talk.retry_of,
        )

        def unit(db: Database) -> SentCompletion:
            person = people.known_person(db, exchange.person.person_id)
            if person is None or person.is_blocked:
                raise BadInput("Your accounts were joined or deleted while I wrote: please say that again.")
            return completions.add_completion(db, sent, exchange.inbox_id, self._clock())

        return await self._store.run(unit)

    async def _stream(self, request: CompletionRequest, running: _Running, *, is_shown: bool) -> Completion:
        async with aclosing(self._server.complete(request, running.stop)) as parts:
            async for part in parts:
                if isinstance(part, Completion):
                    return part
                if is_shown:
                    running.has_shown = True
                    await running.writer.write(part)
        raise ServerBroke(f"the stream for {request.model!r} ended without a completion; try again")

    async def _show_again(
        self, client: ChatClient, address: ChatAddress, reply_to: str | None, sent: SentCompletion
    ) -> None:
        """What a crash, or a store that failed, left without its message keys."""
        keys = self._shown.get(sent.completion_id)
        if keys is None:
            keys = await self._show(await client.open_reply(address, reply_to), sent, fell_back=False)
        await self._save_keys(sent, keys)

    async def _save_keys(self, sent: SentCompletion, keys: tuple[str, ...]) -> None:
        self._shown[sent.completion_id] = keys
        await self._store.run(completions.set_message_keys, sent.completion_id, keys)
        del self._shown[sent.completion_id]

    async def _show(self, writer: ReplyWriter, sent: SentCompletion, *, fell_back: bool) -> tuple[str, ...]:
        return await writer.finish(
            Reply(
                text=sent.completion.text or "(I have nothing to say to that.)",
                buttons=_thumbs(sent.completion_id) if self._rules.has_buttons else (),
                completion_id=sent.completion_id,
                version_name=sent.version_name,
                data={"finish_reason": sent.completion.finish_reason, "fell_back": fell_back},
            )
        )


def _begins_to_repeat(text: str, turns: tuple[Turn, ...]) -> bool:
    """True of the first answer of a conversation that is mostly repetition: it is said once."""
    return is_mostly_repetition(text) and not any(
        is_mostly_repetition(turn.text) for turn in turns if turn.role == "assistant"
    )


def _thumbs(completion_id: int) -> tuple[Button, ...]:
    return (
        Button(label="👍", action=f"good:{completion_id}"),
        Button(label="👎", action=f"bad:{completion_id}"),
        Button(label="↻", action="retry"),
    )


async def _files(client: ChatClient, said: Said) -> tuple[Part, ...]:
    """The message's text files. Raises BadInput naming the file that cannot be read."""
    found = []
    for attachment in said.attachments:
        try:
            text = await client.read(attachment)
        except ChatError as error:
            raise BadInput(f"I could not read {attachment.name!r}: {error}. Send its text instead.") from error
        found.append(Part(text=f"{attachment.name}:\n```\n{text}\n```", key=said.message_key, is_file=True))
    return tuple(found)
