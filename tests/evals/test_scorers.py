"""What counts as one short sentence."""

import pytest

from claasbot.evals.scorers import one_short_sentence


@pytest.mark.parametrize(
    "text",
    ["Paris.", "It is 3.5 metres long!", "Yes, e.g. tea", " ".join(["word"] * 25) + ".", "Really?!"],
)
def test_one_short_sentence_that_ended_complies(text):
    assert one_short_sentence(text, "stop") == 1.0


@pytest.mark.parametrize(
    ("text", "finish_reason"),
    [
        ("Paris.", "length"),
        ("Paris.", "abort"),
        ("", "stop"),
        ("It rains. It pours.", "stop"),
        ("What? Yes.", "stop"),
        ("1\n2", "stop"),
        (" ".join(["word"] * 26), "stop"),
    ],
)
def test_everything_else_does_not(text, finish_reason):
    assert one_short_sentence(text, finish_reason) == 0.0
