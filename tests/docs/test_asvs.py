"""S-25: the ledger of OWASP ASVS 5.0 has every requirement of levels 1 and 2 once, and its evidence exists."""

import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEDGER = tomllib.loads((ROOT / "docs" / "asvs.toml").read_text(encoding="utf-8"))
LEVELS = {level: ids.split() for level, ids in LEDGER["levels"].items()}
NOT_APPLICABLE = [number for ids in LEDGER["not_applicable"].values() for number in ids.split()]


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_requirement_of_both_levels_has_one_state():
    assert [len(LEVELS["1"]), len(LEVELS["2"])] == [70, 183]
    states = Counter([*LEDGER["met"], *LEDGER["open"], *NOT_APPLICABLE])
    assert set(states) == {*LEVELS["1"], *LEVELS["2"]}
    assert set(states.values()) == {1}


@pytest.mark.parametrize("number", LEDGER["met"])
def test_what_is_met_names_a_test_or_a_page_that_exists(number):
    how, *evidence = LEDGER["met"][number]
    assert how
    assert evidence
    for one in evidence:
        path, _, name = one.replace("#", "::", 1).partition("::")
        assert (ROOT / path).is_file(), one
        if path.startswith("docs/"):
            assert not name or name in anchors(ROOT / path), one
        elif name:
            function = name.rpartition("::")[2]
            assert f"def {function}(" in (ROOT / path).read_text(encoding="utf-8"), one


def test_nothing_is_open_without_a_reason():
    assert all(len(why) > 20 for why in LEDGER["open"].values())
