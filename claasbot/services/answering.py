"""From what a person said to the answer they see: converse, choose a version, complete, reply."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from dataclasses import dataclass

from sqlite_utils import Database

from claasbot.domain.completion import Completion, CompletionRequest, Sampling, SentCompletion
from claasbot.domain.conversation import (
    Button,
    ChatAddress,
    Message,
    Reply,
    Turn,
    prompt_messages,
    surely_fits,
    without_oldest_exchange,
)
from claasbot.domain.person import CONSENT_TEXT, CONSENT_VERSION, Person
from claasbot.errors import AdapterNotLoaded, BadInput, NotFound, ServerDown
from claasbot.ports import ChatClient, InferenceServer, ReplyWriter, ServerInfo
from claasbot.services.clock import Clock
from claasbot.services.serving import Policy, Serving
from claasbot.storage import conversations, people
from claasbot.storage.store import Store

log = logging.getLogger(__name__)

CONSENT_CARD = Reply(
    text=CONSENT_TEXT,
    notice=True,
    buttons=(Button(label="Yes, learn from me", action="consent:yes"), Button(label="No", action="consent:no")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRules:
    """What the host decides about answers."""

    system_prompt: str
    sampling: Sampling
    template_options: dict[str, object]
    max_message_chars: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Exchange:
    """One answer in the making."""

    person: Person
    address: ChatAddress
    conversation_id: int
    turns: tuple[Turn, ...]
    inbox_id: int | None
    retry_of: int | None = None


class Answering:
    """Answers one message at a time per chat; several chats at once."""

    def __init__(self, store: Store, server: InferenceServer, serving: Serving, rules: ChatRules, clock: Clock) -> None:
        self._store = store
        self._server = server
        self._serving = serving
        self._rules = rules
        self._clock = clock
        self._stops: dict[ChatAddress, asyncio.Event] = {}

    async def answer(
        self, client: ChatClient, person: Person, address: ChatAddress, text: str, inbox_id: int, reply_to: str | None
    ) -> None:
        """Answer a message. Raises BadInput for one that cannot be read and ServerDown to be tried again."""
        said = self._checked(text)
        sent = await self._store.run(conversations.completion_of_update, inbox_id)
        if sent is None:
            exchange = await self._store.run(self._begin, person, address, said, inbox_id)
            try:
                await self._complete(client, exchange, reply_to)
            except BadInput:  # what cannot be read is no part of the conversation
                await self._store.run(conversations.drop_user_turn, inbox_id, self._clock())
                raise
        elif sent.message_key is None:
            await self._show(client, await client.open_reply(address, reply_to), sent, fell_back=False)
        await self._ask_consent_once(client, person, address)

    async def retry(self, client: ChatClient, person: Person, address: ChatAddress, reply_to: str | None) -> None:
        """Another answer to the last message; the first one is kept. Raises NotFound when there is none."""
        last = await self._store.run(conversations.last_completion, person.person_id, address)
        if last is None:
            raise NotFound("There is no answer to retry in this conversation yet.")
        turn_id = await self._store.run(conversations.turn_of_completion, last.completion_id)
        turns = await self._store.run(conversations.turns, last.conversation_id, before=turn_id)
        exchange = _Exchange(
            person=person,
            address=address,
            conversation_id=last.conversation_id,
            turns=turns,
            inbox_id=None,
            retry_of=last.completion_id,
        )
        await self._complete(client, exchange, reply_to)

    def stop(self, address: ChatAddress) -> bool:
        """Stop the answer that is being written there; False when there is none."""
        running = self._stops.get(address)
        if running is None:
            return False
        running.set()
        return True

    def _checked(self, text: str) -> str:
        said = text.strip()
        if not said:
            raise BadInput("The message is empty: write something and I answer it.")
        if len(said) > self._rules.max_message_chars:
            raise BadInput(
                f"The message has {len(said):,} characters; I read at most {self._rules.max_message_chars:,}. "
                "Send it in parts, or the part that matters."
            )
        return said

    def _begin(self, db: Database, person: Person, address: ChatAddress, text: str, inbox_id: int) -> _Exchange:
        now = self._clock()
        conversation_id = conversations.open_conversation(db, person.person_id, address, now)
        conversations.add_user_turn(db, conversation_id, text, inbox_id, now)
        return _Exchange(
            person=person,
            address=address,
            conversation_id=conversation_id,
            turns=conversations.turns(db, conversation_id),
            inbox_id=inbox_id,
        )

    async def _complete(self, client: ChatClient, exchange: _Exchange, reply_to: str | None) -> None:
        messages = await self._fitting(exchange.turns)
        writer = await client.open_reply(exchange.address, reply_to)
        stop = self._stops[exchange.address] = asyncio.Event()
        try:
            info = await self._server.info()
            policy, completion = await self._sample(writer, exchange.person, messages, stop)
            sent = await self._keep(exchange, messages, policy, completion, info)
            await self._show(client, writer, sent, fell_back=policy.fell_back)
        except Exception:
            await writer.finish(Reply(text="(This answer broke off.)", notice=True))
            raise
        finally:
            del self._stops[exchange.address]

    async def _fitting(self, turns: tuple[Turn, ...]) -> tuple[Message, ...]:
        """The messages, without the oldest turns where they do not fit. Raises BadInput if the last alone does not."""
        budget = (await self._server.info()).max_model_len - self._rules.sampling.max_tokens
        while True:
            messages = prompt_messages(self._rules.system_prompt, turns)
            if surely_fits(messages, budget):
                return messages
            n_tokens = await self._server.count_tokens(messages, self._rules.template_options)
            if n_tokens <= budget:
                return messages
            fewer = without_oldest_exchange(turns)
            if fewer == turns:
                raise BadInput(f"The message has {n_tokens:,} tokens; {budget:,} fit my window. Send it in parts.")
            turns = fewer

    async def _sample(
        self, writer: ReplyWriter, person: Person, messages: tuple[Message, ...], stop: asyncio.Event
    ) -> tuple[Policy, Completion]:
        for attempt in (1, 2):
            policy = await self._serving.policy_of(person.person_id)
            request = CompletionRequest(
                messages=messages,
                model=policy.model,
                sampling=self._rules.sampling,
                template_options=self._rules.template_options,
            )
            try:
                async with self._serving.holding(policy.version):
                    return policy, await _stream(self._server, request, writer, stop)
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

    async def _show(self, client: ChatClient, writer: ReplyWriter, sent: SentCompletion, *, fell_back: bool) -> None:
        reply = Reply(
            text=sent.completion.text or "(I have nothing to say to that.)",
            completion_id=sent.completion_id,
            version_name=sent.version_name,
            data={"finish_reason": sent.completion.finish_reason, "fell_back": fell_back},
        )
        keys = await writer.finish(reply)
        await self._store.run(conversations.set_message_keys, sent.completion_id, keys)

    async def _ask_consent_once(self, client: ChatClient, person: Person, address: ChatAddress) -> None:
        def must_ask(db: Database) -> bool:
            if not people.consent_of(db, person.person_id, address).must_be_asked:
                return False
            people.record_consent(db, person.person_id, address, "asked", CONSENT_VERSION, self._clock())
            return True

        if await self._store.run(must_ask):
            await client.send(address, CONSENT_CARD)


async def _stream(
    server: InferenceServer, request: CompletionRequest, writer: ReplyWriter, stop: asyncio.Event
) -> Completion:
    async with aclosing(server.complete(request, stop)) as parts:
        async for part in parts:
            if isinstance(part, Completion):
                return part
            await writer.write(part)
    raise ServerDown(f"the stream for {request.model!r} ended without a completion; try again")
