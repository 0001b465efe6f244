"""States change as the tables say, and in no other way."""

import itertools

import pytest

from claasbot.domain import adapter, experience
from claasbot.domain.experience import Trainable, why_not
from claasbot.domain.person import CONSENT_VERSION, Consent
from claasbot.errors import ImpossibleTransition

YES = Consent(state="granted", text_version=CONSENT_VERSION)
LIMITS = Trainable(is_on=True, max_staleness=3, max_tokens=60)
FINE = {
    "consent": YES,
    "kind": "text",
    "is_whole": True,
    "n_tokens": 9,
    "n_prompt_tokens": 50,
    "staleness": 0,
    "limits": LIMITS,
}


def test_a_consumed_experience_never_teaches_again():
    assert experience.TRANSITIONS["consumed"] == {"withdrawn"}
    assert experience.TRANSITIONS["withdrawn"] == frozenset()


def test_a_rejected_version_never_answers():
    reachable, frontier = set(), {"rejected"}
    while frontier:
        reachable |= frontier
        frontier = set().union(*(adapter.TRANSITIONS[state] for state in frontier)) - reachable
    assert "promoted" not in reachable


@pytest.mark.parametrize("module", [experience, adapter])
def test_what_the_table_does_not_allow_raises(module):
    for old, new in itertools.product(module.TRANSITIONS, repeat=2):
        if new in module.TRANSITIONS[old]:
            assert module.moved(old, new) == new
        else:
            with pytest.raises(ImpossibleTransition, match=f"{old!r} to {new!r}"):
                module.moved(old, new)


def test_an_answer_with_consent_and_words_may_teach():
    assert why_not(**FINE) is None


@pytest.mark.parametrize("state", ["unasked", "asked", "withdrawn"])
def test_without_a_yes_nothing_teaches(state):
    consent = Consent(state=state, text_version=CONSENT_VERSION)
    assert "/optin" in why_not(**{**FINE, "consent": consent})


def test_a_yes_to_an_older_text_is_no_yes():
    assert why_not(**{**FINE, "consent": Consent(state="granted", text_version="2020-01")})


def test_a_cut_off_answer_teaches_by_correction_only():
    assert why_not(**{**FINE, "is_whole": False}) is not None
    assert why_not(**{**FINE, "is_whole": False, "kind": "correction"}) is None


def test_a_stale_answer_teaches_nothing():
    assert why_not(**{**FINE, "staleness": 3}) is None
    assert why_not(**{**FINE, "staleness": 4}) is not None


def test_a_conversation_that_is_too_long_to_train_is_refused_with_both_numbers():
    assert why_not(**{**FINE, "n_prompt_tokens": 51}) is None
    reason = why_not(**{**FINE, "n_prompt_tokens": 52})
    assert "61 tokens" in reason
    assert "60" in reason


def test_nothing_teaches_where_learning_is_switched_off():
    off = Trainable(is_on=False, max_staleness=3, max_tokens=60)
    assert why_not(**{**FINE, "limits": off}) == "learning is switched off here"
