"""From what a person said to the answer they see: converse, choose a version, complete, reply."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from sqlite_utils import Database

from claasbot.domain.completion import Completion, CompletionRequest, Sampling, SentCompletion
from claasbot.domain.conversation import (
    Button,
    ChatAddress,
    Edited,
    Message,
    Reply,
    Said,
    Turn,
    ever_fewer,
    prompt_messages,
    surely_fits,
)
from claasbot.domain.gate import is_mostly_repetition
from claasbot.domain.person import CONSENT_TEXT, Person
from claasbot.domain.room import Room
from claasbot.errors import AdapterNotLoaded, BadInput, ChatError, NotFound, ServerDown
from claasbot.ports import ChatClient, InferenceServer, ReplyWriter, ServerInfo
from claasbot.services.clock import Clock
from claasbot.services.serving import Policy, Serving
from claasbot.storage import chats, conversations, inbox, people
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRules:
    """What the host decides about answers."""

    system_prompt: str
    sampling: Sampling
    template_options: dict[str, object]
    max_message_chars: int
    group_idle: timedelta = timedelta(minutes=10)
    """In a group, a message that replies to nothing begins a new conversation after this pause."""
    answers_per_day: int = 0
    """Most answers to one person in 24 hours; 0: as many as they like."""
    has_buttons: bool = True
    """Whether answers carry thumbs and a retry, where the surface has none of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Exchange:
    """One answer in the making."""

    person: Person
    address: ChatAddress
    reply_to: str | None
    conversation_id: int
    turns: tuple[Turn, ...]
    room: Room
    inbox_id: int | None
    may_use_adapter: bool
    """What was learned in private answers in a group only where the person agreed to it there."""
    retry_of: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Running:
    """The answer that is being written in a chat."""

    person_id: int
    stop: asyncio.Event
    done: asyncio.Event


class Answering:
    """Answers one message at a time per chat; several chats at once."""

    def __init__(self, store: Store, server: InferenceServer, serving: Serving, rules: ChatRules, clock: Clock) -> None:
        self._store = store
        self._server = server
        self._serving = serving
        self._rules = rules
        self._clock = clock
        self._running: dict[ChatAddress, _Running] = {}

    async def answer(self, client: ChatClient, person: Person, said: Said, inbox_ids: tuple[int, ...]) -> None:
        """Answer a message, or several that were merged into one; `inbox_ids` are their rows, in order.

        Raises BadInput for one that cannot be read and ServerDown to be tried again.
        """
        text = self._checked(await _whole_text(client, said))
        await self._answer_once(client, person, said, inbox_ids[0], partial(self._begin, person, said, text, inbox_ids))

    async def answer_edited(self, client: ChatClient, person: Person, edited: Edited, inbox_id: int) -> None:
        """Answer the person's last message again, as it reads now. An edit of an older one changes nothing."""
        text = self._checked(edited.text)
        begin = partial(self._begin_edited, person, edited, text, inbox_id)
        await self._answer_once(client, person, edited, inbox_id, begin)

    async def _answer_once(
        self,
        client: ChatClient,
        person: Person,
        event: Said | Edited,
        inbox_id: int,
        begin: Callable[[Database], _Exchange | None],
    ) -> None:
        """Complete and show; what a crash interrupted is taken up where it stopped."""
        sent = await self._store.run(conversations.completion_of_update, inbox_id)
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
            writer = await client.open_reply(event.address, event.message_key or None)
            await self._show(writer, sent, fell_back=False)

    async def retry(
        self, client: ChatClient, person: Person, address: ChatAddress, reply_to: str | None, inbox_id: int
    ) -> None:
        """Another answer to the last message; the first one is kept. Raises NotFound when there is none."""
        if await self._store.run(conversations.completion_of_update, inbox_id) is not None:
            return  # done before a crash

        def begin(db: Database) -> _Exchange:
            last = conversations.last_completion(db, person.person_id, address)
            if last is None:
                raise NotFound("There is no answer to retry in this conversation yet.")
            turn_id = conversations.turn_of_completion(db, last.completion_id)
            turns = conversations.turns(db, last.conversation_id, before=turn_id)
            return self._exchange(
                db, person, address, last.conversation_id, turns, reply_to, inbox_id, retry_of=last.completion_id
            )

        await self._complete(client, await self._store.run(begin))

    def stop(self, address: ChatAddress, person_id: int) -> bool:
        """Stop the answer that is being written there to that person; False when there is none."""
        running = self._running.get(address)
        if running is None or running.person_id != person_id:
            return False
        running.stop.set()
        return True

    async def finished(self, address: ChatAddress) -> None:
        """Return when no answer is being written there."""
        running = self._running.get(address)
        if running is not None:
            await running.done.wait()

    def _checked(self, text: str) -> str:
        said = text.strip()
        if not said:
            raise BadInput("The message is empty, or it has no text in it: write something and I answer it.")
        if len(said) > self._rules.max_message_chars:
            raise BadInput(
                f"The message has {len(said):,} characters; I read at most {self._rules.max_message_chars:,}. "
                "Send it in parts, or the part that matters."
            )
        return said

    def _begin(self, person: Person, said: Said, text: str, inbox_ids: tuple[int, ...], db: Database) -> _Exchange:
        """The person's turn, one transaction with the end of the updates that were merged into it."""
        now, address = self._clock(), said.address
        known = conversations.user_turn_of_update(db, inbox_ids[0])
        if known is not None:
            conversation_id = int(known["conversation_id"])
        else:
            self._refuse_too_many(db, person)
            replied = said.reply_to and conversations.branch(db, person.person_id, address, said.reply_to, now)
            idle_since = now - self._rules.group_idle if said.is_group else None
            conversation_id = replied or conversations.open_conversation(
                db, person.person_id, address, now, idle_since=idle_since
            )
            quoted = f"> {said.quote}\n\n{text}" if said.quote and replied else text
            conversations.add_user_turn(
                db,
                conversation_id,
                quoted,
                inbox_ids[0],
                now,
                message_key=said.message_key or None,
                is_interaction=said.is_interaction,
                is_forwarded=said.is_forwarded,
            )
            for merged in inbox_ids[1:]:
                inbox.handled(db, merged, now)
        turns = conversations.turns(db, conversation_id)
        return self._exchange(db, person, address, conversation_id, turns, said.message_key or None, inbox_ids[0])

    def _begin_edited(self, person: Person, edited: Edited, text: str, inbox_id: int, db: Database) -> _Exchange | None:
        now = self._clock()
        turn = conversations.user_turn_of_update(db, inbox_id)
        if turn is None:
            written = conversations.user_turns_at(db, edited.address, edited.message_key)
            old = next((row for row in written if row["person_id"] == person.person_id), None)
            if old is None or old["text"] == text:
                return None
            later = conversations.turns_after(db, old["id"])
            if any(row["role"] == "user" for row in later):
                return None
            self._refuse_too_many(db, person)
            for row in (old, *later):
                conversations.replace_turn(db, row["id"], now)
            conversation_id = int(old["conversation_id"])
            conversations.add_user_turn(
                db,
                conversation_id,
                text,
                inbox_id,
                now,
                message_key=edited.message_key,
                is_interaction=bool(old["is_interaction"]),
            )
        else:
            conversation_id = int(turn["conversation_id"])
        turns = conversations.turns(db, conversation_id)
        return self._exchange(db, person, edited.address, conversation_id, turns, edited.message_key, inbox_id)

    def _exchange(
        self,
        db: Database,
        person: Person,
        address: ChatAddress,
        conversation_id: int,
        turns: tuple[Turn, ...],
        reply_to: str | None,
        inbox_id: int | None,
        *,
        retry_of: int | None = None,
    ) -> _Exchange:
        room = chats.room(db, address)
        consent = people.consent_of(db, person.person_id, address)
        return _Exchange(
            person=person,
            address=address,
            reply_to=reply_to,
            conversation_id=conversation_id,
            turns=turns,
            room=room,
            inbox_id=inbox_id,
            may_use_adapter=consent.allows_learning or not room.is_group,
            retry_of=retry_of,
        )

    def _refuse_too_many(self, db: Database, person: Person) -> None:
        most = self._rules.answers_per_day
        if most and conversations.n_answers_since(db, person.person_id, self._clock() - timedelta(days=1)) >= most:
            raise BadInput(
                f"You had {most:,} answers in the last 24 hours, as many as the host gives. Come back later."
            )

    async def _complete(self, client: ChatClient, exchange: _Exchange) -> None:
        messages, is_shortened = await self._fitting(exchange)
        writer = await client.open_reply(exchange.address, exchange.reply_to)
        running = _Running(person_id=exchange.person.person_id, stop=asyncio.Event(), done=asyncio.Event())
        self._running[exchange.address] = running
        try:
            info = await self._server.info()
            policy, completion = await self._sample(writer, exchange, messages, running.stop)
            sent = await self._keep(exchange, messages, policy, completion, info)
            await self._show(writer, sent, fell_back=policy.fell_back)
        except Exception:
            await writer.finish(Reply(text="(This answer broke off.)", notice=True))
            raise
        finally:
            del self._running[exchange.address]
            running.done.set()
        if is_shortened and await self._store.run(conversations.shorten, exchange.conversation_id):
            await client.send(exchange.address, SHORTENED)
        if _begins_to_repeat(completion.text, exchange.turns):
            await client.send(exchange.address, REPEATING)

    async def _fitting(self, exchange: _Exchange) -> tuple[tuple[Message, ...], bool]:
        """The messages and whether oldest exchanges were left out: as few as possible, found by bisection.

        Raises BadInput if the last message alone does not fit.
        """
        budget = (await self._server.info()).max_model_len - self._rules.sampling.max_tokens
        choices = ever_fewer(exchange.turns)
        system_prompt = exchange.room.persona or self._rules.system_prompt
        if await self._n_over(messages := prompt_messages(system_prompt, choices[0]), budget) == 0:
            return messages, False
        n_over = await self._n_over(prompt_messages(system_prompt, choices[-1]), budget)
        if n_over:
            raise BadInput(f"The message has {budget + n_over:,} tokens; {budget:,} fit my window. Send it in parts.")
        low, high = 1, len(choices) - 1
        while low < high:
            middle = (low + high) // 2
            fits = await self._n_over(prompt_messages(system_prompt, choices[middle]), budget) == 0
            low, high = (low, middle) if fits else (middle + 1, high)
        return prompt_messages(system_prompt, choices[low]), True

    async def _n_over(self, messages: tuple[Message, ...], budget: int) -> int:
        """How many tokens do not fit; the server is asked only where it is not plain."""
        if surely_fits(messages, budget):
            return 0
        return max(0, await self._server.count_tokens(messages, self._rules.template_options) - budget)

    async def _sample(
        self, writer: ReplyWriter, exchange: _Exchange, messages: tuple[Message, ...], stop: asyncio.Event
    ) -> tuple[Policy, Completion]:
        shown = writer if exchange.room.is_streaming else None
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
                    return policy, await _stream(self._server, request, shown, stop)
            except AdapterNotLoaded:
                if policy.version is None or attempt == 2:
                    raise
                self._serving.lost(policy.version)
        raise AssertionError("unreachable")

    async def _keep(
        self,
        exchange: _Exchange,
        messages: tuple[Message, ...],
        policy: Policy,
        completion: Completion,
        info: ServerInfo,
    ) -> SentCompletion:
        sent = SentCompletion(
            completion_id=0,
            person_id=exchange.person.person_id,
            conversation_id=exchange.conversation_id,
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
            retry_of=exchange.retry_of,
        )
        return await self._store.run(conversations.add_completion, sent, exchange.inbox_id, self._clock())

    async def _show(self, writer: ReplyWriter, sent: SentCompletion, *, fell_back: bool) -> None:
        keys = await writer.finish(
            Reply(
                text=sent.completion.text or "(I have nothing to say to that.)",
                buttons=_thumbs(sent.completion_id) if self._rules.has_buttons else (),
                completion_id=sent.completion_id,
                version_name=sent.version_name,
                data={"finish_reason": sent.completion.finish_reason, "fell_back": fell_back},
            )
        )
        await self._store.run(conversations.set_message_keys, sent.completion_id, keys)


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


async def _whole_text(client: ChatClient, said: Said) -> str:
    """The message with its text files. Raises BadInput naming the file that cannot be read."""
    parts = [said.text]
    for attachment in said.attachments:
        try:
            parts.append(f"{attachment.name}:\n```\n{await client.read(attachment)}\n```")
        except ChatError as error:
            raise BadInput(f"I could not read {attachment.name!r}: {error}. Send its text instead.") from error
    return "\n\n".join(part for part in parts if part.strip())


async def _stream(
    server: InferenceServer, request: CompletionRequest, writer: ReplyWriter | None, stop: asyncio.Event
) -> Completion:
    async with aclosing(server.complete(request, stop)) as parts:
        async for part in parts:
            if isinstance(part, Completion):
                return part
            if writer is not None:
                await writer.write(part)
    raise ServerDown(f"the stream for {request.model!r} ended without a completion; try again")
