"""Markdown → text with entities, in pieces; the official parser (tdjson) is the referee."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from claasbot.chat.telegram import formatting
from claasbot.chat.telegram.formatting import MAX_ENTITIES, Piece, plain, rendered, units
from tests.chat.telegram.formatting import accepted_by_official_parser

HOSTILE = r"""# Title 😀 👩‍👩‍👧 𝔘𝔫𝔦
Some **bold** and _it_ ||spoil|| `code` [link](https://x.yz/z) ![img](https://a.bc/d.png) [bad](https://a/b)
snake_case @everyone

- one **two
  - three
    1. four ` five
- [ ] task ~~struck~~

| Head | **Tail** |
|---|:-:|
| `a|b` | 𝔘 |
| unfinished

```python
def f(x):  # 🐍 **not bold**
    return "<b>" < x
```

Maths $x^2 + \frac{a}{b}$ and $$\sum_i x_i$$ and \(y\) and \[z\] and $5
> quote **bold
> > deeper `

<details><summary>Html</summary> if a<b && c>d </details> &amp; &lt;

~~~
unclosed *fence* and **bold and `code [link](http://
"""


def checked(piece: Piece, max_units: int) -> Piece:
    n_units = units(piece.text)
    assert 0 < n_units <= max_units and piece.text.strip()
    assert len(piece.entities) <= MAX_ENTITIES
    boundaries = {units(piece.text[:index]) for index in range(len(piece.text) + 1)}
    for entity in piece.entities:
        assert entity.length > 0
        assert {entity.offset, entity.offset + entity.length} <= boundaries, "an entity cuts a character in two"
    return piece


def is_accepted(piece: Piece) -> bool:
    return accepted_by_official_parser(piece.text, [entity.to_dict() for entity in piece.entities])


def test_every_prefix_renders_splits_and_is_accepted_by_the_official_parser():
    for end in range(len(HOSTILE) + 1):
        for piece in rendered(HOSTILE[:end]):
            checked(piece, 4096)
            assert is_accepted(piece), HOSTILE[:end]


@settings(max_examples=60, deadline=None)
@given(end=st.integers(0, len(HOSTILE)), times=st.integers(1, 12), max_units=st.integers(64, 600))
def test_every_cut_keeps_the_limits(end, times, max_units):
    for piece in rendered(HOSTILE * times + HOSTILE[:end], max_units):
        checked(piece, max_units)


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from("ab *_`~|#>[]()<&$\\-\n1.😀𝔘\ufe0f\u200d\ud800\x00"), max_size=200))
def test_any_text_renders(text):
    for piece in rendered(text, 100):
        checked(piece, 100)
        assert is_accepted(piece)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["**w{}**", "`w{}`", "w{}", "- w{}", "> w{}", "|w{}|", "<w{}>", "w{} < 3"]), max_size=60)
)
def test_no_word_gets_lost_or_changes_its_place(shapes):
    words = [f"w{number}" for number in range(len(shapes))]
    markdown = "\n\n".join(shape.format(number) for number, shape in enumerate(shapes))
    shown = " ".join(piece.text for piece in rendered(markdown, 50))
    found = [word.strip("|<>•-") for word in shown.split()]
    assert [word for word in found if word.startswith("w")] == words


def test_what_looks_like_html_is_shown_as_it_was_written():
    assert rendered("<details>yes</details> and `a<b` and if x < y:")[0].text == (
        "<details>yes</details> and a<b and if x < y:"
    )


def test_a_code_block_that_is_cut_stays_code_in_every_piece():
    pieces = rendered("```py\n" + "x = 1\n" * 2000 + "```\nand *that* is it")
    assert len(pieces) == 3
    for piece in pieces:
        code = piece.entities[0]
        assert (code.type, code.language, code.offset) == ("pre", "py", 0)
    assert pieces[0].text.count("\n") == 681 and pieces[0].text.endswith("x = 1"), "it is cut between lines"
    assert pieces[-1].entities[1].type == "italic"


def test_a_table_becomes_an_aligned_block():
    (piece,) = rendered("| a | long |\n|---|---|\n| 1 | 2 |")
    assert piece.text == "a | long\n--+-----\n1 | 2"
    assert [entity.type for entity in piece.entities] == ["pre"]


def test_astral_characters_count_twice():
    pieces = rendered("😀" * 4096)
    assert [units(piece.text) for piece in pieces] == [4096, 4096]


def test_more_entities_than_telegram_honours_make_more_pieces():
    pieces = rendered("**a** " * 250)
    assert sum(len(piece.entities) for piece in pieces) == 250
    assert all(len(piece.entities) <= 100 for piece in pieces)


def test_links_that_ping_or_go_nowhere_are_shown_as_text():
    (piece,) = rendered("[a](tg://user?id=5) [b](javascript:x) [c](docs/c.md) [d](https://d.ef)")
    assert piece.text == "a b c d"
    assert [entity.url for entity in piece.entities] == ["https://d.ef"]


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from("ab.:/?#-@%0é_ "), max_size=12), st.sampled_from(["http://", "https://a.bc", ""]))
@example(rest=":0", beginning="https://a.bc")
def test_no_link_makes_the_message_unacceptable(rest, beginning):
    for piece in rendered(f"see [this]({beginning}{rest}) there"):
        assert is_accepted(piece)


def test_a_text_that_shows_nothing_is_an_ellipsis():
    for nothing in ("", "  \n", "```", "\u200b\u200d", "[](x)"):
        assert rendered(nothing) == (Piece(text="…"),)
        assert plain("") == (Piece(text="…"),)


def test_headings_carry_no_pictures():
    assert [piece.text for piece in rendered("# One\n\n## Two\n\n### Three")] == ["One\n\nTwo\n\nThree"]


def test_plain_text_means_what_it_says():
    assert plain("2*3*4 is _not_ <b>bold</b>") == (Piece(text="2*3*4 is _not_ <b>bold</b>"),)


def test_the_shared_settings_of_the_library_are_not_touched():
    from telegramify_markdown.config import get_runtime_config

    assert get_runtime_config().markdown_symbol.heading_level_1 == "📌"
    assert formatting._CONFIG.markdown_symbol.heading_level_1 == ""
