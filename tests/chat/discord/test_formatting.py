"""Markdown as Discord shows it; no platform is needed."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from claasbot.chat.discord.formatting import MAX_UNITS, pieces, units, with_tables_as_code

HOSTILE = """# Rain

**bold *both** lost* ||spoiler `code || ``two`` and ```inline block``` @everyone <@1> [a](http://b)
> quote
>>> ```python
def rain():
\treturn "```" + '''x''' * 3  # 🌧️🌧️
```
| city | mm |
|:-----|---:|
| Oslo | 12 ||
| 東京 | ```9``` |

````md
``` nested
````
* a
  1. b `
```unclosed
"""

fragments = st.sampled_from(
    [
        "```",
        "````",
        "`",
        "``",
        "```python\n",
        "\n",
        "\n\n",
        " ",
        "a",
        "word ",
        "| a | b |\n",
        "|---|---|\n",
        "🌧️",
        "\\",
        "* ",
    ]
)
texts = st.one_of(
    st.lists(fragments, max_size=120).map("".join),
    st.text(max_size=300),
    st.tuples(st.text(max_size=30), st.integers(1, 400)).map(lambda pair: pair[0] * pair[1]),
)


def without_fences(text: str) -> str:
    """What a person reads: the letters, without fences and the language words behind those that open."""
    shown, in_code = [], False
    for index, part in enumerate(text.split("```")):
        if index:
            in_code = not in_code
        if in_code:
            part = re.sub(r"\A[\w+\-.#]{0,20}(\n|\Z)", "", part)
        shown.append(part)
    return "".join("".join(shown).split())


def check(text: str, limit: int) -> None:
    shown = with_tables_as_code(text.strip("\n"))
    found = pieces(text, limit)
    assert all(0 < units(piece) <= limit for piece in found)
    assert all(piece.count("```") % 2 == 0 for piece in found)
    assert all(piece.strip() for piece in found)
    assert "".join(map(without_fences, found)) == without_fences(shown)


@given(text=texts, limit=st.sampled_from([60, 200, MAX_UNITS]))
@example(text="```" * 30, limit=60)
@example(text="`" * 500, limit=60)
@example(text="```python\n" + "x" * 300, limit=60)
@example(text="a" * 59 + "🌧️" * 40, limit=60)
@settings(max_examples=400, deadline=None)
def test_any_text_fits_with_balanced_fences_and_nothing_lost(text: str, limit: int):
    check(text, limit)


@pytest.mark.parametrize("limit", [60, 150, MAX_UNITS])
def test_every_prefix_of_hostile_markdown_fits_with_balanced_fences_and_nothing_lost(limit: int):
    text = HOSTILE * 3
    for size in range(0, len(text), 1 if limit < MAX_UNITS else 7):
        check(text[:size], limit)


def test_blank_text_is_no_message():
    assert pieces(" \n\n ") == ()


def test_short_text_is_one_piece_as_it_is():
    assert pieces("**Rain** is `water`.") == ("**Rain** is `water`.",)


def test_a_long_text_is_cut_between_lines():
    first, second = "a" * 1500, "b" * 1500
    assert pieces(f"{first}\n{second}") == (first, second)


def test_a_long_line_is_cut_between_words():
    found = pieces("word " * 500)
    assert [set(piece.split()) for piece in found] == [{"word"}, {"word"}]


def test_a_long_code_block_goes_on_in_the_same_language():
    code = "\n".join(f"x{number} = {number}" for number in range(400))
    first, *others = pieces(f"Look:\n```python\n{code}\n```\nDone.")
    assert first.startswith("Look:\n```python\n") and first.endswith("\n```")
    assert all(other.startswith("```python\n") for other in others)
    assert others[-1].endswith("\n```\nDone.")


def test_two_units_count_as_two():
    assert [units(piece) for piece in pieces("🌧" * 1500)] == [2000, 1000]


def test_a_table_becomes_a_code_block_with_even_columns():
    table = "Rain:\n| city | mm |\n|---|:-:|\n| Oslo | 12 |\n| 東京 | 9 |\nWet."
    assert with_tables_as_code(table) == ("Rain:\n```\ncity | mm\n-----+---\nOslo | 12\n東京 | 9\n```\nWet.")


def test_a_table_inside_code_is_left_alone():
    code = "```\n| a | b |\n|---|---|\n| 1 | 2 |\n```"
    assert with_tables_as_code(code) == code


def test_bars_without_a_rule_are_no_table():
    assert with_tables_as_code("a | b\nc | d") == "a | b\nc | d"


def test_a_row_with_a_fence_ends_the_table():
    table = "| a | b |\n|---|---|\n| 1 | 2 |\n| ``` | 3 |"
    assert with_tables_as_code(table) == "```\na | b\n--+--\n1 | 2\n```\n| ``` | 3 |"
