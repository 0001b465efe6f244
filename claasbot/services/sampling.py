"""One completion that nobody watches grow: for canaries, comparisons and scores."""

from __future__ import annotations

from contextlib import aclosing

from claasbot.domain.completion import Completion, CompletionRequest
from claasbot.errors import ServerDown
from claasbot.ports import InferenceServer


async def sample(server: InferenceServer, request: CompletionRequest) -> Completion:
    """Raises ServerDown when the stream ends without a completion. Closes the stream whatever happens."""
    async with aclosing(server.complete(request)) as parts:
        async for part in parts:
            if isinstance(part, Completion):
                return part
    raise ServerDown(f"the stream of {request.model!r} ended without a completion; try again")
