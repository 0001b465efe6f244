"""What was sampled: the tokens themselves, so that what was sampled is what is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from claasbot.domain.conversation import ChatAddress, Message

BASE = "base"
"""The version name of answers by the base model alone."""

FinishReason = Literal["stop", "length", "abort"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn. `seed` None: the server's own choice."""

    temperature: float = 0.7
    top_p: float = 0.9
    max_tokens: int = 256
    seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    """What the server is asked. `model` is a name it serves: the base model's or a loaded adapter's."""

    messages: tuple[Message, ...]
    model: str
    sampling: Sampling
    template_options: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One answer with its evidence.

    `token_ids` and `logprobs` have the same length; the end-of-turn token is the last of them
    when `finish_reason` is `stop`. Logprobs are raw (before temperature), in nats.
    """

    text: str
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    model: str
    first_token_s: float
    total_s: float

    @property
    def is_whole(self) -> bool:
        """It ended by itself or at the token limit; an aborted answer teaches by correction only."""
        return self.finish_reason != "abort" and len(self.token_ids) > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SentCompletion:
    """A completion as it is kept: what a lesson needs to be trained on exactly what was sampled."""

    completion_id: int
    person_id: int
    conversation_id: int
    address: ChatAddress
    message_key: str | None
    messages: tuple[Message, ...]
    completion: Completion
    sampling: Sampling
    template_options: dict[str, object]
    template_hash: str
    base_revision: str
    version_id: int | None
    version_name: str
    retry_of: int | None = None
