"""The embedded model's own tokenizer and chat template take nobody's words for marks (S-20)."""

from __future__ import annotations

from pathlib import Path

from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from claasbot.domain.conversation import Message
from tests.domain.test_markers import prompts
from tests.hostile.chat_markers import TEXTS


def test_no_text_of_the_corpus_becomes_a_special_token_of_the_embedded_model(base_model_folder: Path):
    tokenizer = Tokenizer.from_file(str(base_model_folder / "tokenizer.json"))
    source = (base_model_folder / "chat_template.jinja").read_text(encoding="utf-8")
    template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(source)
    special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}

    def found(messages: tuple[Message, ...]) -> list[int]:
        text = template.render(
            messages=[{"role": one.role, "content": one.content} for one in messages], add_generation_prompt=True
        )
        return [number for number in tokenizer.encode(text, add_special_tokens=False).ids if number in special]

    expected = [found(messages) for messages in prompts("harmless")]
    broken = [text for text in TEXTS if [found(messages) for messages in prompts(text)] != expected]
    print(f"special tokens {len(special)}, texts {len(TEXTS)}, broken {len(broken)}")
    assert broken == []
