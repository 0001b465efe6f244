"""The base model, loaded once and kept, with one person's adapter on it at a time.

Turns messages into prompt ids and token ids into logprobs. Refuses to sample: completions come from the server.
Letters: T completion tokens, V vocabulary.
"""

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from claasbot.base_model import base_revision
from claasbot.domain.conversation import Message
from claasbot.domain.job import Recipe
from claasbot.errors import JobRefused, ModelMissing
from claasbot.training.lora import Adapter

transformers.utils.logging.disable_progress_bar()


class Policy:
    """Base weights (frozen, eval mode), tokenizer and the adapter of the job at hand."""

    def __init__(self, model: Any, tokenizer: Any, *, name: str, revision: str) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self.revision = revision
        self._adapter: Adapter | None = None

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def max_positions(self) -> int:
        return int(self.model.config.max_position_embeddings)

    @property
    def n_vocabulary(self) -> int:
        return int(self.model.get_input_embeddings().num_embeddings)

    @property
    def adapter(self) -> Adapter:
        assert self._adapter is not None, "wear() comes first"
        return self._adapter

    def wear(self, recipe: Recipe) -> Adapter:
        """The adapter that the recipe asks for: the one that is on, unless rank, alpha or targets change."""
        rank, lora_alpha, targets = recipe.rank, recipe.lora_alpha, recipe.target_modules
        adapter = self._adapter
        if adapter is not None and adapter.fits(rank=rank, lora_alpha=lora_alpha, target_modules=targets):
            return adapter
        if adapter is not None:
            adapter.take_out()
        self._adapter = None
        self._adapter = Adapter(self.model, rank=rank, lora_alpha=lora_alpha, target_modules=targets)
        return self._adapter

    def prompt_ids(self, messages: tuple[Message, ...], template_options: dict[str, object]) -> tuple[int, ...]:
        """The chat template's rendering, generation prompt included. Raises JobRefused, without the text."""
        rows = [{"role": message.role, "content": message.content} for message in messages]
        try:
            ids = self.tokenizer.apply_chat_template(
                rows, add_generation_prompt=True, tokenize=True, return_dict=False, **template_options
            )
        except Exception as error:  # jinja raises what the template's author chose, often quoting the messages
            raise JobRefused(f"the chat template refuses these messages ({type(error).__name__})") from None
        return tuple(ids)

    def text_ids(self, text: str) -> tuple[int, ...]:
        """The ids of an answer written by a person or by us, closed by the end-of-turn token."""
        return (*self.tokenizer.encode(text, add_special_tokens=False), self.tokenizer.eos_token_id)

    def logprobs(self, prompt_ids: tuple[int, ...], token_ids: tuple[int, ...]) -> Tensor:
        """Logprobs over the vocabulary before each completion token: (T, V) fp32, in nats."""
        return self.batch_logprobs([(prompt_ids, token_ids)])

    def batch_logprobs(self, rows: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> Tensor:
        """The same for several prompts and completions at once, one after the other: (sum of T, V).

        Padded on the right without an attention mask: attention is causal, so no real token sees the padding, and the
        last completion token itself is not needed. The head runs on completion positions only, as one matrix: for
        (1, T, H) torch takes another kernel on the CPU that is four times slower.
        """
        width = max(len(prompt) + len(completion) for prompt, completion in rows) - 1
        padded = [
            (prompt + completion)[:-1] + (0,) * (width + 1 - len(prompt + completion)) for prompt, completion in rows
        ]
        ids = torch.tensor(padded, device=self.device)  # (B, L)
        hidden = self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state  # (B, L, H)
        wanted = [
            hidden[row, len(prompt) - 1 : len(prompt) + len(completion) - 1]
            for row, (prompt, completion) in enumerate(rows)
        ]
        return self.model.get_output_embeddings()(torch.cat(wanted)).float().log_softmax(-1)


def load_policy(folder: Path, *, device: str = "cpu", dtype: torch.dtype = torch.bfloat16) -> Policy:
    """Raises ModelMissing when the folder does not hold a complete model."""
    if not (folder / "config.json").is_file():
        raise ModelMissing(f"no base model at {str(folder)!r}; make one with `python -m claasbot.training.prepare`")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, attn_implementation="sdpa", local_files_only=True
        )
    except (OSError, ValueError) as error:
        raise ModelMissing(f"the base model at {str(folder)!r} cannot be read ({error}); make it again") from error
    for weight in model.parameters():
        weight.data = weight.data.clone()  # safetensors maps the file: unaligned, which costs a tenth of every product
    policy = Policy(model.to(device), tokenizer, name=folder.name, revision=base_revision(folder))
    _check_head(policy)
    return policy


@torch.no_grad()
def _check_head(policy: Policy) -> None:
    """`batch_logprobs` applies the head itself; some architectures scale or cap the logits after it."""
    ids = torch.tensor([[0, 1, 2, 3]], device=policy.device)
    theirs = policy.model(input_ids=ids, use_cache=False).logits[0, -1].float().log_softmax(-1)
    ours = policy.logprobs((0, 1, 2, 3), (0,))[0]
    if not torch.allclose(ours, theirs, atol=0.1, rtol=0.05):
        raise ModelMissing(f"{policy.name} changes its logits after the head, which we do not; use another model")
