"""S-24: what one person or program can ask for is bounded, and told in one clear line when it is too much."""

from __future__ import annotations

import importlib
import inspect
import itertools
import pkgutil
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

import claasbot
from claasbot.domain.completion import CompletionRequest
from claasbot.domain.conversation import Message, Said
from claasbot.errors import SettingsError
from claasbot.inference.vllm import BaseFacts, VllmServer
from claasbot.settings import Settings, load
from claasbot.storage import people
from claasbot.storage.store import Store
from tests.faults.conftest import scaled
from tests.inference.fake_vllm import FakeVllm, first, serving, token
from tests.services.world import World, running_world

_ELSEWHERE = ("claasbot.training", "claasbot.vllm_plugins", "claasbot.__main__")
"""Other processes, which read no person's text with a pattern."""
_N = scaled(100_000, 20_000)
_PATIENCE_S = _N / 100_000
"""Of CPU time, ten times what the slowest pattern needs; going back over the text takes ten times more again."""


@pytest.fixture
async def world(tmp_path: Path, store: Store) -> AsyncIterator[World]:
    async with running_world(tmp_path, Settings(learning={"debounce_s": 0.0}), store) as world:
        yield world


async def test_a_message_may_have_eight_thousand_characters(world: World) -> None:
    assert (await world.chat.say("ada", "x" * 7_900)).completion_id is not None
    assert "8,001 characters; I read at most 8,000" in (await world.chat.say("ada", "x" * 8_001)).text


@pytest.mark.parametrize("command", ["feedback", "correct", "bad"])
async def test_feedback_may_have_two_thousand_characters(world: World, command: str) -> None:
    await world.chat.command("ada", "optin")
    reply = await world.chat.say("ada", "What is rain?")
    key = str(reply.completion_id)
    assert "I learn from at most 2,000" in (await world.chat.command("ada", command, "x" * 2_001, key)).text
    assert "Noted" in (await world.chat.command("ada", command, "x" * 2_000, key)).text


async def test_a_name_is_kept_up_to_eighty_characters(world: World) -> None:
    address = world.chat.chat_of("ada")
    said = Said(address=address, account="ada", display_name="A" * 5_000, update_key="u", message_key="m", text="Hi")
    await world.chat.post(said)
    await world.cycle.settled()
    person = await world.store.run(people.known, address.platform, "ada")
    assert person is not None and len(person.display_name) == 80


async def test_half_a_character_is_replaced_and_the_message_answered(world: World) -> None:
    """A lone surrogate is JSON, but no text that a database or a server takes."""
    await world.chat.say("ada", "Hello")
    address = world.chat.chat_of("ada")
    said = Said(address=address, account="ada", display_name="\ud83d", update_key="u", message_key="m", text="a\ud800b")
    await world.chat.post(said)
    await world.cycle.settled()
    assert world.chat.said_to("ada", "reply")[-1].text == "scripted heard: a\ufffdb"


async def test_the_server_is_asked_for_one_bounded_answer() -> None:
    sampling = Settings().chat.sampling()
    question = (Message(role="user", content="What is rain?"),)
    request = CompletionRequest(model="base", messages=question, sampling=sampling, template_options={})
    async with serving(FakeVllm()) as fake:
        fake.answers["/v1/chat/completions"] = fake.streams(first([1]), token("Water.", 2, finish="stop"))
        server = VllmServer(BaseFacts(name="base", revision="r", template_hash="t"), url=fake.url)
        async for _ in server.complete(request):
            pass
        await server.close()
    (body,) = fake.seen["/v1/chat/completions"]
    assert (body["n"], body["max_tokens"]) == (1, 256)


def test_an_answer_as_long_as_the_window_is_refused_at_the_start(tmp_path: Path) -> None:
    config = tmp_path / "claasbot.toml"
    config.write_text("[chat]\nmax_tokens = 1000000\n")
    with pytest.raises(SettingsError, match=r"chat\.max_tokens \(1000000\) leaves no room"):
        load(config)


# --- patterns ---


_METHODS = ("search", "fullmatch", "match")


def patterns() -> list[tuple[str, re.Pattern[str], tuple[str, ...]]]:
    """Every pattern that a module of the bot keeps, with the ways in which the module uses it."""
    found = []
    for module in pkgutil.walk_packages(claasbot.__path__, "claasbot."):
        if not module.name.startswith(_ELSEWHERE):
            loaded = importlib.import_module(module.name)
            kept = [(name, one) for name, one in vars(loaded).items() if isinstance(one, re.Pattern)]
            source = inspect.getsource(loaded) if kept else ""
            found += [
                (
                    f"{module.name}.{name}",
                    one,
                    tuple(how for how in _METHODS if f"{name}.{how}(" in source) or ("search",),
                )
                for name, one in kept
            ]
    return found


PATTERNS = patterns()
PARTS = [
    *(
        "a",
        " ",
        "\t",
        "\n",
        "-",
        "|",
        "| -",
        "|-|",
        ":-",
        "`",
        "```",
        "*",
        "_",
        "[",
        "[a](",
        "](",
        "(",
        "<",
        "<|",
        "<|a",
    ),
    *(
        "</",
        "http://",
        "http://a.",
        "www.",
        "a.",
        ".",
        "!",
        "?!",
        '."',
        "0",
        "1-",
        "a:",
        "a.b",
        "no ",
        "don't ",
        "please ",
    ),
    *(
        "%0",
        "% ",
        "%.0",
        ":-|",
        "|:",
        "- |",
        "-:",
        "too long ",
        "Error: ",
        "//",
        "/bot",
        "{",
        "{{",
        '"',
        "\\",
        "&",
        "é",
        "😀",
        "\ufe0f",
        "\u200b",
        "=",
        "#",
        "a-b ",
    ),
]


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    def lost(number: int, frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGVTALRM, lost)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def test_the_patterns_are_found() -> None:
    assert len(PATTERNS) > 10, PATTERNS
    assert any("remark" in name for name, _, _ in PATTERNS)


@pytest.mark.parametrize(("name", "pattern", "methods"), PATTERNS, ids=[name for name, _, _ in PATTERNS])
def test_no_text_keeps_a_pattern_busy(name: str, pattern: re.Pattern[str], methods: tuple[str, ...]) -> None:
    """A hundred thousand characters within seconds of CPU time: what backtracks takes minutes."""
    for part, end in itertools.product(PARTS, ("", "\x00")):
        text = part * (_N // len(part)) + end
        try:
            with patience(_PATIENCE_S):
                for method in methods:
                    getattr(pattern, method)(text)
        except TimeoutError:
            pytest.fail(f"{name} is busy with {part!r} repeated to {_N:,} characters, ended by {end!r}")
