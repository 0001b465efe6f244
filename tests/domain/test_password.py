"""Which passwords may be used (S-09)."""

from __future__ import annotations

import random
import string

import pytest

from claasbot.domain.password import MAX_CHARS, MIN_CHARS, why_refused
from claasbot.services.passwords import common_passwords

OWN = ("claasbot", "eve")


def refusal(password: str) -> str | None:
    return why_refused(password, OWN, common_passwords())


def test_the_list_holds_the_3000_most_common_and_the_long_ones():
    assert len(common_passwords()) > 3_400
    assert {"123456", "password", "qwerty", "1q2w3e4r5t6y"} <= common_passwords()
    assert sum(len(word) >= MIN_CHARS for word in common_passwords()) > 450


def test_every_password_of_the_list_is_refused_in_any_case_and_with_digits_or_signs_around_it():
    n = 0
    for word in common_passwords():
        for form in (word, word.upper(), word.capitalize(), f"{word}1234567890!!", f"**{word}**2026*******", word * 4):
            if form.strip(string.digits + string.punctuation + string.whitespace):
                assert refusal(form) is not None, form
                n += 1
    assert n > 10_000


@pytest.mark.parametrize(
    ("password", "words"),
    [
        ("", "has 0 characters; use 12 or more, best 15"),
        ("elevenchars", "has 11 characters"),
        ("x" * (MAX_CHARS + 1), "at most 256"),
        ("Claasbot-2026!", "common"),
        ("eve1111111111", "common"),
        ("aaaaaaaaaaaaaaaa", "common"),
        ("passwordpassword", "common"),
    ],
)
def test_what_is_guessed_first_is_refused_with_the_reason(password, words):
    assert words in (refusal(password) or "")


@pytest.mark.parametrize(
    "password",
    [
        "drei Enten am Fluss",
        "correct horse battery staple",
        "пароль для моей кошки",
        "wxyz" * 4 + "yz" * 30,
        "483920174652",  # digits alone are allowed: no rule about kinds of characters
        "🦆🦢🐧🦉🦅🐤🦜🦩🐓🦃🦚🕊",
    ],
)
def test_a_password_of_ones_own_may_be_used_whatever_it_is_made_of(password):
    assert refusal(password) is None


def test_random_passwords_of_64_characters_and_more_are_taken():
    draw = random.Random(7)
    for _ in range(500):
        assert refusal("".join(draw.choices(string.ascii_letters, k=draw.randint(12, MAX_CHARS)))) is None
