"""How much of a conversation the model can read at once. Asks the server's tokenizer, and as rarely as possible."""

from __future__ import annotations

from claasbot.domain.conversation import Message, Turn, ever_fewer, prompt_messages, surely_fits
from claasbot.errors import BadInput
from claasbot.ports import InferenceServer


async def fitting(
    server: InferenceServer,
    turns: tuple[Turn, ...],
    system_prompt: str,
    template_options: dict[str, object],
    max_tokens: int,
) -> tuple[tuple[Message, ...], bool]:
    """The messages and whether oldest exchanges were left out: as few as possible, found by bisection.

    `max_tokens` are kept free for the answer. Raises BadInput if the last message alone does not fit.
    """
    budget = (await server.info()).max_model_len - max_tokens

    async def n_over(messages: tuple[Message, ...]) -> int:
        if surely_fits(messages, budget):
            return 0
        return max(0, await server.count_tokens(messages, template_options) - budget)

    choices = [prompt_messages(system_prompt, fewer) for fewer in ever_fewer(turns)]
    if await n_over(choices[0]) == 0:
        return choices[0], False
    too_many = await n_over(choices[-1])
    if too_many:
        raise BadInput(f"The message has {budget + too_many:,} tokens; {budget:,} fit my window. Send it in parts.")
    low, high = 1, len(choices) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if await n_over(choices[middle]) == 0 else (middle + 1, high)
    return choices[low], True
