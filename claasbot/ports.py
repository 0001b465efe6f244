"""What the cycle needs from outside, as protocols. Each has two implementations and one contract suite."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from claasbot.domain.completion import Completion, CompletionRequest
from claasbot.domain.conversation import Attachment, ChatAddress, ChatEvent, Message, Reply
from claasbot.domain.job import TrainingJob, TrainingResult


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """What a ready server says of itself."""

    base_model: str
    """The name under which it serves the base model."""
    max_model_len: int
    """Most tokens of prompt and completion; one fewer than the server takes, so that a full window can be scored."""
    max_loras: int
    """Adapter slots; the bot uses at most one fewer, so that a load never evicts one in use."""
    base_revision: str
    template_hash: str
    generation: int
    """Grows with every restart: what an earlier generation had loaded is gone."""
    forgets_adapters: bool
    """Whether the adapter control (`forget`, `checksum`) answers."""


class InferenceServer(Protocol):
    """vLLM, or something that answers like it. Every method raises ServerDown when it cannot be reached."""

    async def info(self) -> ServerInfo: ...

    def complete(
        self, request: CompletionRequest, stop: asyncio.Event | None = None
    ) -> AsyncGenerator[str | Completion, None]:
        """Text deltas, then one Completion. Closing the iterator aborts on the server.

        When `stop` is set the server is told to stop too, and the Completion that follows holds what was
        sampled so far, with `finish_reason="abort"`.
        Raises AdapterNotLoaded for a model name that is not served, ServerRefused for other refusals,
        ServerDown when the stream breaks.
        """
        ...

    async def count_tokens(self, messages: tuple[Message, ...], template_options: dict[str, object]) -> int: ...

    async def logprobs(self, model: str, prompt_ids: tuple[int, ...], token_ids: tuple[int, ...]) -> tuple[float, ...]:
        """Logprobs in nats of `token_ids` after `prompt_ids`, computed afresh."""
        ...

    async def load(self, name: str, folder: Path) -> None:
        """Make a version folder answer under `name`. A name is used for one folder only, ever."""
        ...

    async def unload(self, name: str) -> None:
        """Stop serving `name`. Requests that run under it finish. Unknown names are fine."""
        ...

    async def loaded(self) -> frozenset[str]: ...

    async def forget(self, name: str) -> bool:
        """Drop the worker's own copy too; False when the server cannot, so that it must be restarted."""
        ...

    async def checksum(self, name: str) -> str | None:
        """Hex digest of the weights in the slot of `name`; None when the server cannot say."""
        ...

    async def close(self) -> None: ...


class TrainingEngine(Protocol):
    """Where a job runs."""

    async def run(self, job: TrainingJob) -> TrainingResult:
        """Make the version of `job`. Running it twice makes the same one.

        Raises EngineDown (try again later), JobRefused (never will work), or AdapterDamaged when an earlier attempt
        left other bytes under the version's name than the job makes now: the caller, who knows the rows, deletes them.
        Cancelling leaves the job to be run again.
        """
        ...

    def is_ready(self) -> bool: ...

    async def discard(self, job_id: str) -> None:
        """Delete what the engine keeps of a job: it holds people's text. Nothing works on it once this returns."""
        ...

    async def discard_all_but(self, job_ids: Collection[str]) -> None:
        """Discard what a crash left of jobs that are over."""
        ...

    async def close(self) -> None: ...


Accept = Callable[[ChatEvent], Awaitable[None]]
"""Commits the event to the inbox before it returns; the same `update_key` twice is one event."""

Mark = Literal["noted", "queued", "learned", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientHealth:
    """How a chat client stands, for the dashboard and `claasbot doctor`."""

    state: Literal["ok", "busy", "down"]
    detail: str
    """What is wrong and what to do about it; in good health, what it is connected to."""


class ReplyWriter(Protocol):
    """One reply that is being written."""

    async def write(self, delta: str) -> None:
        """More text. Never waits for the platform: what it cannot show in time is shown later or not at all."""
        ...

    async def finish(self, reply: Reply) -> tuple[str, ...]:
        """Show the whole reply, whatever became of the deltas; returns the keys of its messages, in order.

        A long reply is several messages, and all of their keys name it. Raises ChatError.
        """
        ...


class ChatClient(Protocol):
    """One bot account on one platform: updates become ChatEvents, Replies become messages. It decides nothing."""

    platform: str
    bot_account: str
    max_file_bytes: int
    """The largest file that a reply may bring, as `file_name` and `file_path` of its data; 0: people fetch files from
    an address of their own."""

    async def run(self, accept: Accept) -> None:
        """Receive until cancelled. What the platform refuses for good is told by `health`, and tried again rarely."""
        ...

    async def open_reply(self, address: ChatAddress, reply_to: str | None) -> ReplyWriter:
        """`reply_to`: the person's message, command or press that is answered."""
        ...

    async def send(self, address: ChatAddress, reply: Reply, reply_to: str | None = None) -> tuple[str, ...]:
        """A message of its own, such as a notice; returns its keys. Raises ChatError, or ChatGone for good."""
        ...

    async def mark(self, address: ChatAddress, message_key: str, mark: Mark | None) -> None:
        """Show on that message what became of feedback; None takes the mark off. Best effort: never raises."""
        ...

    async def read(self, attachment: Attachment) -> str:
        """The text of an attachment. Raises ChatError when it cannot be fetched or is no text."""
        ...

    def health(self) -> ClientHealth: ...

    def forget(self, account: str) -> None:
        """Drop what is kept in memory of somebody who was forgotten."""
        ...
