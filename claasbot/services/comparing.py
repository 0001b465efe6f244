"""One question, two versions, side by side: what the last lesson changed. Stores nothing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from claasbot.domain.adapter import AdapterVersion
from claasbot.domain.completion import BASE, CompletionRequest
from claasbot.domain.conversation import Turn, prompt_messages
from claasbot.errors import BadInput, NotFound
from claasbot.ports import InferenceServer
from claasbot.services.exchanges import ChatRules
from claasbot.services.sampling import sample
from claasbot.services.serving import Serving
from claasbot.storage import versions
from claasbot.storage.store import Store

_SEED = 20260
_MAX_TOKENS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    version_name: str
    text: str
    n_tokens: int


class Comparing:
    """Samples the same question from the current version and the one before it, with one seed."""

    def __init__(self, store: Store, server: InferenceServer, serving: Serving, rules: ChatRules) -> None:
        self._store = store
        self._server = server
        self._serving = serving
        self._rules = rules

    async def compare(self, person_id: int, question: str, persona: str = "") -> tuple[Compared, Compared]:
        """(before, now). Raises NotFound while only the base model has answered, BadInput for no question.

        `persona`: the system message of the chat that asks; empty: the host's.
        """
        asked = question.strip()
        if not asked or len(asked) > self._rules.max_message_chars:
            raise BadInput(f"The question has {len(asked):,} characters; give 1 to {self._rules.max_message_chars:,}.")
        now = await self._store.run(versions.current, person_id)
        if now is None:
            raise NotFound("There is nothing to compare yet: the base model answers you. Give feedback first.")
        before = None if now.parent_id is None else await self._store.run(versions.version, now.parent_id)
        return await asyncio.gather(self._answer(before, asked, persona), self._answer(now, asked, persona))

    async def _answer(self, version: AdapterVersion | None, question: str, persona: str) -> Compared:
        info = await self._serving.info()
        if version is not None:
            await self._serving.ensure_loaded(version)
        sampling = replace(
            self._rules.sampling, seed=_SEED, max_tokens=min(_MAX_TOKENS, self._rules.sampling.max_tokens)
        )
        request = CompletionRequest(
            messages=prompt_messages(
                persona or self._rules.system_prompt, (Turn(turn_id=0, role="user", text=question),)
            ),
            model=info.base_model if version is None else version.server_name,
            sampling=sampling,
            template_options=self._rules.template_options,
        )
        async with self._serving.holding(version):
            completion = await sample(self._server, request)
        name = BASE if version is None else version.name
        return Compared(version_name=name, text=completion.text, n_tokens=len(completion.token_ids))
