"""Where a line still stands when a lesson is taken back, and what is learned again after that."""

from dataclasses import replace

import pytest

from claasbot.domain.job import JobExperience, Recipe, lesson_seed, rebuild_identity
from claasbot.domain.rebuild import Again, Standing, Taught, of_lesson, plan
from claasbot.errors import NotFound

LINE = tuple(Standing(version_id=10 * n, has_files=True) for n in (1, 2, 3, 4))


def taught(n: int, *, by: int | None = None, revoked: bool = False, why_not: str | None = None) -> Taught:
    """Experience `n`, which is lesson `n` and was learned by the `n`-th version, or by another one since."""
    return Taught(
        experience_id=n, job_id=f"job{n}", lesson_n=n, version_id=10 * (by or n), is_revoked=revoked, why_not=why_not
    )


def again(*numbers: int) -> tuple[Again, ...]:
    return tuple(Again(job_id=f"job{n}", experience_ids=(n,)) for n in numbers)


@pytest.mark.parametrize(
    ("revoked", "start", "rest"),
    [
        ({1}, None, (2, 3, 4)),
        ({2}, 10, (3, 4)),
        ({4}, 30, ()),
        ({2, 3}, 10, (4,)),
        ({1, 2, 3, 4}, None, ()),
        ({}, 40, ()),
    ],
)
def test_the_line_stands_up_to_the_first_lesson_taken_back(revoked, start, rest):
    found = plan(LINE, [taught(n, revoked=n in revoked) for n in (1, 2, 3, 4)])
    assert (found.start, found.lessons, found.lost) == (start, again(*rest), ())


def test_a_version_without_files_is_no_place_to_start_from():
    line = (LINE[0], replace(LINE[1], has_files=False), *LINE[2:])
    rows = [taught(1), taught(2), taught(3, revoked=True), taught(4)]
    assert plan(line, rows).start == 10
    assert plan(line, rows).lessons == again(2, 4)
    nothing_left = [replace(version, has_files=False) for version in LINE]
    assert plan(nothing_left, [taught(n) for n in (1, 2, 3, 4)]).lessons == again(1, 2, 3, 4)


def test_lessons_of_a_rebuilt_version_are_gone_through_in_the_order_in_which_they_were_learned():
    line = LINE[:3]
    rows = [taught(5, by=3), taught(4, by=2), taught(2, by=2), taught(1, revoked=True), taught(3, by=2, revoked=True)]
    assert plan(line, rows).lessons == again(2, 4, 5)


def test_one_piece_of_feedback_leaves_its_lesson_and_the_rest_of_the_lesson_stays():
    rows = [taught(1), replace(taught(1, revoked=True), experience_id=7), replace(taught(1), experience_id=8)]
    assert plan(LINE[:1], rows).lessons == (Again(job_id="job1", experience_ids=(1, 8)),)


def test_what_cannot_be_learned_again_is_named_and_goes():
    rows = [taught(1, why_not="old"), taught(2, revoked=True), taught(3, why_not="its messages went"), taught(4)]
    found = plan(LINE, rows)
    assert found.lost == (rows[2],)  # what comes before is not touched
    assert found.lessons == again(4)


def test_a_lesson_is_known_by_its_number_as_long_as_it_stands():
    rows = [taught(1), replace(taught(1), experience_id=9), taught(2, revoked=True)]
    assert of_lesson(rows, 1) == (1, 9)
    for missing in (2, 3):
        with pytest.raises(NotFound, match=f"Lesson {missing} is not one that I stand on"):
            of_lesson(rows, missing)


def test_a_seed_is_of_what_the_experiences_hold_and_of_the_recipe_not_of_their_numbers():
    one, two = (
        JobExperience(
            experience_id=n, messages=(), teacher_messages=(), prompt_ids=(7, n), token_ids=(n,), logprobs=(-1.0,),
            version_name="base",
        )
        for n in (1, 2)
    )  # fmt: skip
    assert lesson_seed((one, two), Recipe()) == lesson_seed((two, one), Recipe())
    assert lesson_seed((replace(one, experience_id=900),), Recipe()) == lesson_seed((one,), Recipe())
    others = {lesson_seed((two,), Recipe()), lesson_seed((one,), Recipe(n_steps=1))}
    assert len(others | {lesson_seed((one,), Recipe())}) == 3
    assert 0 <= lesson_seed((one,), Recipe()) < 2**31


def test_a_rebuild_is_another_job_when_its_lessons_their_order_or_its_version_differ():
    def job_id(*lessons, version_name="p1.v5"):
        return rebuild_identity(
            parent="base", version_name=version_name, lessons=tuple((ids, Recipe()) for ids in lessons)
        )

    assert job_id((1, 2), (3,)) == job_id((2, 1), (3,))
    assert len({job_id((1, 2), (3,)), job_id((3,), (1, 2)), job_id((1,), (2, 3)), job_id((1, 2, 3))}) == 4
    assert job_id((1,)) != job_id((1,), version_name="p1.v6")
