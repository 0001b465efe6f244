"""Gathers a streamed chat completion: text for the person, token ids and raw logprobs for the lesson.

Pure: events in, values out. Refuses an answer whose evidence is not whole; text alone can never be learned from.
"""

from __future__ import annotations

from typing import Any, get_args

from claasbot.domain.completion import Completion, FinishReason
from claasbot.errors import ServerBroke, ServerRefused


class Gathering:
    """One choice of one answer, event by event."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.text: list[str] = []
        self.prompt_ids: tuple[int, ...] | None = None
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        self.finish_reason: FinishReason | None = None
        self.first_token_s: float | None = None

    def add(self, event: dict[str, Any], elapsed_s: float) -> str:
        """The new text of an event, which may be empty: the end of turn is a token without text."""
        if "error" in event:
            error = event["error"]
            said = error.get("message") if isinstance(error, dict) else error
            raise ServerBroke(f"the server broke its stream off: {said!r}; ask again")
        if event.get("prompt_token_ids") is not None:
            self.prompt_ids = tuple(event["prompt_token_ids"])
        choices = event.get("choices") or []
        if not choices:
            return ""  # usage
        try:
            return self._add_choice(choices[0], elapsed_s)
        except (KeyError, TypeError, AttributeError) as error:
            raise ServerRefused(f"the stream has a chunk of another shape ({error!r}); is this vLLM?") from error

    def _add_choice(self, choice: dict[str, Any], elapsed_s: float) -> str:
        ids = choice.get("token_ids") or []
        logprobs = [float(row["logprob"]) for row in (choice.get("logprobs") or {}).get("content") or []]
        if len(ids) != len(logprobs):
            raise ServerRefused(
                f"a chunk has {len(ids)} token ids and {len(logprobs)} logprobs, expected as many;"
                " the server must know return_token_ids (vLLM 0.26 or later)"
            )
        self.token_ids += ids
        self.logprobs += logprobs
        if ids and self.first_token_s is None:
            self.first_token_s = elapsed_s
        if (reason := choice.get("finish_reason")) is not None:
            self.finish_reason = _known(reason)
        delta = choice["delta"].get("content") or ""
        self.text.append(delta)
        return delta

    def break_off(self) -> None:
        """The person stopped it: what is here is the answer, unless it had ended by itself."""
        if self.finish_reason is None:
            self.finish_reason = "abort"
            self.prompt_ids = self.prompt_ids or ()

    def completion(self, elapsed_s: float) -> Completion:
        """What was sampled. Raises when the stream ended without saying why, or without the prompt's ids."""
        if self.finish_reason is None:
            raise ServerBroke(f"the stream ended after {len(self.token_ids)} tokens without a reason; ask again")
        if self.prompt_ids is None:
            raise ServerRefused("the stream has no prompt_token_ids; the server must be vLLM 0.26 or later")
        return Completion(
            text="".join(self.text),
            prompt_ids=self.prompt_ids,
            token_ids=tuple(self.token_ids),
            logprobs=tuple(self.logprobs),
            finish_reason=self.finish_reason,
            model=self.model,
            first_token_s=elapsed_s if self.first_token_s is None else self.first_token_s,
            total_s=elapsed_s,
        )


def _known(reason: str) -> FinishReason:
    for known in get_args(FinishReason):
        if reason == known:
            return known  # type: ignore[no-any-return]
    raise ServerRefused(f"finish_reason is {reason!r}, expected one of {get_args(FinishReason)}")
