"""Every mutant still changes the line it names, and the tests that must notice it exist."""

from __future__ import annotations

import pytest

from tests.mutants.__main__ import ROOT, Mutant, all_mutants


@pytest.mark.parametrize("mutant", all_mutants(), ids=lambda mutant: mutant.name)
def test_a_mutant_changes_one_place_and_names_tests_that_exist(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.old) == 1
    assert mutant.old != mutant.new
    for test in mutant.caught_by:
        path, _, name = test.partition("::")
        assert (ROOT / path).exists(), path
        if name:
            function = name.rpartition("::")[2].partition("[")[0]
            assert f"def {function}(" in (ROOT / path).read_text(encoding="utf-8"), test
