"""What a candidate needs to answer people."""

import math
from dataclasses import replace

import pytest

from claasbot.domain.gate import Canary, Limits, is_mostly_repetition, judge_canary, judge_training, repeated_share
from claasbot.domain.job import ExperienceScore, TrainingResult

LIMITS = Limits()
GOOD = TrainingResult(
    job_id="j", version_name="p1.v1", weights_sha256="0" * 64, finite=True, delta_norm=0.5, mismatch_nats=0.03,
    kl_new_old_nats=0.1, kl_base_nats=0.1, new_logprobs=((-1.0,),), parent_logprobs=((-1.2,),), steps=(),
    learned=(), earlier=(ExperienceScore(experience_id=1, before_nats=0.2, after_nats=0.3),),
)  # fmt: skip
SERVED = Canary(served_vs_new_nats=0.03, served_vs_parent_nats=0.2, checksum_matches=True, samples=("Paris.",))


def test_a_good_candidate_passes_both_halves():
    assert judge_training(GOOD, LIMITS).passed
    assert judge_canary(SERVED, LIMITS).passed


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"finite": False}, "finite"),
        ({"delta_norm": 0.0}, "nothing changed"),
        ({"mismatch_nats": 0.9}, "disagree"),
        ({"kl_new_old_nats": 1.01}, "parent"),
        ({"kl_base_nats": math.nan}, "base"),
        ({"earlier": (ExperienceScore(experience_id=1, before_nats=0.1, after_nats=0.7),)}, "earlier lesson"),
        ({"earlier": (ExperienceScore(experience_id=1, before_nats=0.1, after_nats=math.nan),)}, "earlier lesson"),
    ],
)
def test_each_bad_number_is_refused_with_its_reason(change, word):
    assert any(word in reason for reason in judge_training(replace(GOOD, **change), LIMITS).reasons)


def test_too_large_a_move_may_be_tried_smaller_but_a_mismatch_may_not():
    assert judge_training(replace(GOOD, kl_new_old_nats=2.0), LIMITS).can_retry_smaller
    assert not judge_training(replace(GOOD, kl_new_old_nats=2.0, mismatch_nats=0.9), LIMITS).can_retry_smaller


def test_weights_that_were_never_applied_are_noticed_although_noise_hides_them():
    like_parent = replace(SERVED, served_vs_new_nats=0.05, served_vs_parent_nats=0.04, checksum_matches=None)
    assert not judge_canary(like_parent, LIMITS).passed
    assert judge_canary(replace(like_parent, checksum_matches=True), LIMITS).passed
    assert not judge_canary(replace(like_parent, checksum_matches=False), LIMITS).passed


@pytest.mark.parametrize("gap", [0.5, math.nan])
def test_a_server_that_serves_other_weights_is_noticed(gap):
    assert not judge_canary(replace(SERVED, served_vs_new_nats=gap), LIMITS).passed


def test_a_loop_and_silence_are_refused():
    loop = " ".join(["so it goes"] * 12)
    assert judge_canary(replace(SERVED, samples=("Paris.", loop)), LIMITS).reasons == (
        "a sample answer repeats itself",
    )
    assert judge_canary(replace(SERVED, samples=("", " ")), LIMITS).reasons == ("sample answers are empty",)


def test_answers_that_collapsed_are_refused_and_may_be_tried_smaller():
    collapsed = judge_canary(replace(SERVED, explanation="Aw, wow."), LIMITS)
    assert collapsed.reasons == ("the answer to a question that asks how has 2 words, at least 3",)
    assert collapsed.can_retry_smaller
    assert judge_canary(replace(SERVED, explanation="Boil it briefly."), LIMITS).passed
    assert judge_canary(replace(SERVED, explanation=""), replace(LIMITS, min_explanation_words=0)).passed


def test_a_sentence_in_a_script_without_blanks_is_no_collapse():
    assert judge_canary(replace(SERVED, explanation="先把水烧开。"), LIMITS).passed
    assert not judge_canary(replace(SERVED, explanation="好。"), LIMITS).passed


def test_a_loop_in_the_explanation_is_refused_too():
    assert not judge_canary(replace(SERVED, explanation=" ".join(["so it goes"] * 12)), LIMITS).passed


@pytest.mark.parametrize(
    ("text", "share", "is_mostly"),
    [
        ("too short too short too short", 0.0, False),
        # 12 words, ten 3-grams of which three are distinct
        (" ".join(["so it goes"] * 4), 0.7, True),
        # 14 words, twelve 3-grams: a b c d twice gives two repeats
        ("a b c d e f g h a b c d i j", 2 / 12, False),
    ],
)
def test_how_much_of_an_answer_is_repetition(text, share, is_mostly):
    assert repeated_share(text) == pytest.approx(share)
    assert is_mostly_repetition(text) is is_mostly
