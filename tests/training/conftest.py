"""A tiny random model with a tokenizer of its own, saved as a Hugging Face folder once per run."""

import json
import os
from pathlib import Path

import pytest

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from claasbot.domain.conversation import Message
from claasbot.domain.job import JobExperience, Recipe, TrainingJob
from claasbot.training.loss import of_tokens
from claasbot.training.policy import Policy, load_policy
from claasbot.training.probes import Probes

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
RECIPE = Recipe(rank=4, lora_alpha=8, learning_rate=1e-2, kl_stop_nats=100.0)


def save_tiny_model(folder: Path) -> None:
    """Two Llama layers with random weights; one token per character, so that every length is easily counted."""
    characters = [chr(code) for code in range(32, 127)] + ["\n"]
    vocabulary = {token: index for index, token in enumerate(SPECIALS + characters)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        chat_template=TEMPLATE,
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.2,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_tiny_model(folder)
    return folder


@pytest.fixture
def policy(model_folder: Path) -> Policy:
    """In fp32, so that numbers can be compared closely."""
    torch.set_num_threads(1)
    return load_policy(model_folder, dtype=torch.float32)


@pytest.fixture
def probes(policy: Policy, tmp_path: Path) -> Probes:
    cases = [{"question": "Who?", "answer": "Me."}, {"question": "Why so?", "answer": "Because."}]
    path = tmp_path / "probes.json"
    path.write_text(json.dumps({"probes": cases}))
    return Probes(policy, path)


def make_experience(policy: Policy, **changes: object) -> JobExperience:
    """Sampled, as far as the trainer can tell, by the base model: its own logprobs stand in for the server's."""
    messages = (Message(role="user", content="Hi?"),)
    prompt_ids = policy.prompt_ids(messages, {})
    token_ids = policy.text_ids("Hello you")
    with torch.no_grad(), policy.wear(RECIPE).off():
        logprobs = policy.logprobs(prompt_ids, token_ids)
    row = {
        "experience_id": 7,
        "messages": messages,
        "teacher_messages": (Message(role="user", content="Hi? Shout!"),),
        "prompt_ids": prompt_ids,
        "token_ids": token_ids,
        "logprobs": tuple(of_tokens(logprobs, torch.tensor(token_ids)).tolist()),
        "version_name": "base",
    }
    return JobExperience(**(row | changes))  # type: ignore[arg-type]


def make_job(policy: Policy, inside: Path, *experiences: JobExperience, **changes: object) -> TrainingJob:
    row = {
        "job_id": "a" * 24,
        "version_name": "p1.v1",
        "folder": str(inside / "v1"),
        "parent_folder": None,
        "base_revision": policy.revision,
        "template_options": {},
        "recipe": RECIPE,
        "seed": 5,
        "experiences": experiences or (make_experience(policy),),
    }
    return TrainingJob(**(row | changes))  # type: ignore[arg-type]
