"""People's text reaches the model as text, whatever it looks like (S-20)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken, Tokenizer, models

from claasbot.domain.conversation import Message, Turn, prompt_messages
from claasbot.domain.feedback import MAX_FEEDBACK_CHARS
from claasbot.domain.hindsight import MAX_STANDING_CHARS, teacher_messages
from claasbot.domain.markers import plain
from tests.hostile.chat_markers import MARKERS, TEXTS

TEMPLATE = ImmutableSandboxedEnvironment().from_string(
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)


def prompts(text: str) -> list[tuple[Message, ...]]:
    """Every way into a prompt: persona, message, answer, file, hint, earlier preference, correction."""
    said = (("user", text), ("assistant", text), ("user", f"{text}.txt:\n```\n{text}\n```"))
    turns = tuple(Turn(turn_id=n, role=role, text=words) for n, (role, words) in enumerate(said))
    student = prompt_messages(text, turns)
    return [
        student,
        teacher_messages(student, hints=(text or "x",), standing=(text, "be brief")),
        teacher_messages(student, hints=(), standing=(text,), demonstration=text or "x"),
    ]


@pytest.fixture(scope="module")
def every_family() -> Tokenizer:
    """To which every mark of the corpus is a special token."""
    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.add_special_tokens([AddedToken(marker, special=True, normalized=False) for marker in MARKERS])
    return tokenizer


def specials(tokenizer: Tokenizer, messages: tuple[Message, ...]) -> list[str]:
    encoded = tokenizer.encode(TEMPLATE.render(messages=messages))
    return [token for token in encoded.tokens if token != "?"]


def test_no_text_of_the_corpus_becomes_a_special_token(every_family):
    assert len(set(TEXTS)) >= 200
    expected = [specials(every_family, messages) for messages in prompts("harmless")]
    assert all(found.count("<|im_start|>") == 5 and found.count("<|im_end|>") == 4 for found in expected)
    broken = [text for text in TEXTS if [specials(every_family, messages) for messages in prompts(text)] != expected]
    print(f"texts {len(set(TEXTS))}, families' marks {len(MARKERS)}, taken for a mark {len(broken)}")
    assert broken == []


def test_the_corpus_would_break_a_prompt_that_is_not_plain(every_family):
    """Else the test above could not fail."""
    raw = [every_family.encode(marker).tokens for marker in MARKERS]
    assert raw == [[marker] for marker in MARKERS]


@given(st.lists(st.sampled_from([*MARKERS, *"<>|[]_/ \nab"]), max_size=6).map("".join))
@settings(max_examples=300, deadline=None)
def test_no_mixture_of_marks_leaves_one_whole(every_family, text):
    assert [token for token in every_family.encode(plain(text)).tokens if token != "?"] == []


def test_templates_in_a_text_are_not_rendered():
    text = "{{ 7 * 7 }}{% for m in messages %}x{% endfor %}"
    assert text in TEMPLATE.render(messages=prompt_messages("", (Turn(turn_id=1, role="user", text=text),)))


@pytest.mark.parametrize(
    "text",
    [
        "1 < 2 | 3 > 2, <b>bold</b>, <a href='x'>",
        "std::vector<int> x; a <- b; if (a<b && c>d) {}",
        "[1, 2] [x] [TODO] [link](https://x) `[args]` >>> print()",
        "def f(x: list[str]) -> dict[str, int]: ...",
        "",
    ],
)
def test_what_only_resembles_a_mark_is_left_alone(text):
    assert plain(text) == text


def test_what_was_broken_once_is_not_broken_again():
    assert all(plain(plain(text)) == plain(text) for text in TEXTS)


def test_a_very_long_text_is_read_in_one_go():
    text = "<|" * 20_000 + "[" * 20_000 + "<a_" * 20_000
    assert plain(text) == text


def test_hindsight_has_a_length_that_the_prompt_can_bear():
    question = (Message(role="user", content="Q"),)
    long = teacher_messages(question, hints=("h" * 9_000,), standing=("s" * 1_999, "t" * 1_999, "u" * 1_999))
    words = long[-1].content
    assert words.count("h") == MAX_FEEDBACK_CHARS
    assert "s" not in words and words.count("t") + words.count("u") == 2 * 1_999 <= MAX_STANDING_CHARS
    shown = teacher_messages(question, hints=(), demonstration="d" * 9_000)
    assert shown[-1].content.count("ddd" * 100) < 9_000 / 300
