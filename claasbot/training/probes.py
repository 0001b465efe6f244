"""How far an adapter moves the model where nobody gave feedback: KL(base || new) on fixed questions and answers.

Shared by everybody and written by us, so they hold nothing of a person. The base model's side is computed once per
process.
"""

import json
from pathlib import Path

import torch
from torch import Tensor

from claasbot.domain.conversation import Message
from claasbot.training.loss import kl
from claasbot.training.policy import Policy


class Probes:
    """The probe suite for one policy."""

    def __init__(self, policy: Policy, path: Path) -> None:
        cases = json.loads(path.read_text())["probes"]
        self._policy = policy
        self._cases = [(Message(role="user", content=case["question"]), case["answer"]) for case in cases]
        self._base: dict[str, Tensor] = {}  # template options → (N, V)

    def kl_from_base(self, template_options: dict[str, object]) -> float:
        """Mean per token KL(base || new) over all answer tokens, in nats, at the adapter's present weights."""
        key = json.dumps(template_options, sort_keys=True)
        if key not in self._base:
            with self._policy.adapter.off():
                self._base[key] = self._logprobs(template_options)
        return float(kl(self._base[key], self._logprobs(template_options)).double().mean())

    @torch.no_grad()
    def _logprobs(self, template_options: dict[str, object]) -> Tensor:
        """(N, V) over the answer tokens of all probes, in one batch."""
        rows = [
            (self._policy.prompt_ids((question,), template_options), self._policy.text_ids(answer))
            for question, answer in self._cases
        ]
        return self._policy.batch_logprobs(rows)
