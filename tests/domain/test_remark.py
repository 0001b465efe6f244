"""Which messages are about an answer, and which ask something new."""

import pytest

from claasbot.domain.remark import is_reason, is_remark


@pytest.mark.parametrize(
    "text",
    [
        "Too long.",
        "that's too long",
        "That was way too complicated",
        "No, that's wrong.",
        "Please answer in one short sentence.",
        "please be more concise",
        "Keep it short",
        "Shorter please",
        "Don't use bullet points.",
        "Never call me Captain again",
        "That is not what I asked",
        "You misunderstood me",
        "wrong",
        "Please always answer in French",
        "Stop apologizing.",
    ],
)
def test_words_about_the_answer_are_a_remark(text):
    assert is_remark(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "What is the capital of France?",
        "Is that too long for a trip?",
        "And how do I boil an egg",
        "Thanks, that was helpful!",
        "I was wrong about the train",
        "It is a long way to Tipperary",
        "That is too bad, my dog is ill. " + "He has been ill for a week and we do not know what to do " * 3,
        "okay",
        "The answer to everything is 42",
        "Always look on the bright side of life",
        "Write a short poem about rain",
        "More wine",
        "Please write a formal letter to my landlord",
        "no",
        "That is too bad.",
    ],
)
def test_talk_is_no_remark(text):
    assert not is_remark(text)


@pytest.mark.parametrize(
    "text",
    [
        "You went on and on.",
        "It names the wrong river",
        "no numbers, please",
        "Just say Paris",
        "Write less.",
        "boring",
    ],
)
def test_after_what_was_wrong_any_short_statement_is_a_reason(text):
    assert is_reason(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "What is snow?",
        "and how do I boil an egg",
        "Tell me a joke.",
        "Ok, list three fruits",
        "word " * 26,
        "Hello",
    ],
)
def test_another_request_is_no_reason(text):
    assert not is_reason(text)
