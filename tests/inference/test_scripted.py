"""What only the scripted server has: rules, switches, and a memory of what was asked. The rest is in the contract."""

import asyncio
from pathlib import Path

import pytest

from claasbot.domain.completion import BASE, Completion, CompletionRequest, Sampling
from claasbot.domain.conversation import Message
from claasbot.errors import ServerDown, ServerRefused
from claasbot.inference.scripted import ScriptedServer, decode, encode, render, toy_logprobs
from tests.contracts.conftest import TINY, make_version


def ask(text: str, model: str = "scripted") -> CompletionRequest:
    return CompletionRequest(messages=(Message(role="user", content=text),), model=model, sampling=Sampling())


async def answer(server: ScriptedServer, text: str, model: str = "scripted") -> Completion:
    parts = [part async for part in server.complete(ask(text, model))]
    assert isinstance(parts[-1], Completion)
    return parts[-1]


async def test_rules_are_asked_in_order_and_the_echo_last() -> None:
    server = ScriptedServer(
        lambda messages, model: "A whale." if "whale" in messages[-1].content else None,
        lambda messages, model: "An animal." if "a" in messages[-1].content else None,
    )
    assert (await answer(server, "whale?")).text == "A whale."
    assert (await answer(server, "cat?")).text == "An animal."
    assert (await answer(server, "dog?")).text == "scripted heard: dog?"


def test_tokens_can_be_turned_back_into_text() -> None:
    text = "Zażółć 🧭 <|im_end|>"
    assert decode(encode(text)) == text
    assert 2 not in encode(text)


def test_the_prompt_depends_on_roles_order_and_every_message() -> None:
    def of(*roles: str) -> tuple[int, ...]:
        return render(tuple(Message(role=role, content="x") for role in roles))  # type: ignore[arg-type]

    assert len({of("user"), of("assistant"), of("user", "user"), of("system", "user"), of("user", "system")}) == 5


def test_logprobs_depend_on_the_weights_and_on_all_that_stands_before() -> None:
    values = toy_logprobs(BASE, (1, 2, 3), (4, 5))
    assert all(-4.0 <= value <= 0.0 for value in values)
    assert values == toy_logprobs(BASE, (1, 2, 3), (4, 5))
    assert values[1:] == toy_logprobs(BASE, (1, 2, 3, 4), (5,))
    assert values != toy_logprobs("ab" * 32, (1, 2, 3), (4, 5))
    assert values[1] != toy_logprobs(BASE, (9, 2, 3), (4, 5))[1]
    assert len({round(value, 3) for value in toy_logprobs(BASE, (1,), tuple(range(200)))}) > 190


async def test_a_server_that_is_down_says_so_everywhere_and_restarts_empty(tmp_path: Path) -> None:
    server = ScriptedServer()
    await server.load("p1.v1-00", make_version(tmp_path / "v1", TINY, seed=1))
    server.faults.is_down = True
    for call in (server.info(), server.loaded(), answer(server, "Hi"), server.unload("x"), server.checksum("x")):
        with pytest.raises(ServerDown):
            await call
    server.restart()
    assert (await server.info()).generation == 2
    assert await server.loaded() == frozenset()


async def test_a_stream_breaks_without_a_completion() -> None:
    server = ScriptedServer()
    server.faults.breaks_after_tokens = 6
    parts: list[object] = []
    with pytest.raises(ServerDown):
        async for part in server.complete(ask("Hello")):
            parts.append(part)
    assert parts == ["script"]
    assert server.seen.n_running == 0


async def test_a_held_answer_can_be_looked_at_and_stopped() -> None:
    server, reached, stop = ScriptedServer(), asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        reached.set()
        await asyncio.Event().wait()

    server.faults.before_token = hold
    reading = asyncio.create_task(anext(aiter(server.complete(ask("Hello"), stop))))
    await reached.wait()
    assert server.seen.n_running == 1
    stop.set()
    part = await reading
    assert isinstance(part, Completion)
    assert part.finish_reason == "abort"
    assert (server.seen.n_running, server.seen.n_aborted) == (0, 1)


async def test_a_load_can_be_refused(tmp_path: Path) -> None:
    server = ScriptedServer()
    server.faults.refuses_load = "rank 32 is above 16"
    with pytest.raises(ServerRefused, match="rank 32"):
        await server.load("p1.v1-00", make_version(tmp_path / "v1", TINY, seed=1))
    assert server.seen.loads == ["p1.v1-00"]


async def test_it_dies_of_a_folder_that_goes_before_it_was_forgotten(tmp_path: Path) -> None:
    server = ScriptedServer()
    folder = make_version(tmp_path / "v1", TINY, seed=1)
    await server.load("p1.v1-00", folder)
    await server.unload("p1.v1-00")
    folder.rename(tmp_path / "gone")
    with pytest.raises(ServerDown, match="went before it was forgotten"):
        await answer(server, "Hi")


async def test_without_the_adapter_control_it_forgets_nothing(tmp_path: Path) -> None:
    server = ScriptedServer()
    await server.load("p1.v1-00", make_version(tmp_path / "v1", TINY, seed=1))
    server.faults.cannot_forget = True
    assert await server.forget("p1.v1-00") is False
    assert await server.checksum("p1.v1-00") is None
    assert not (await server.info()).forgets_adapters


async def test_a_version_that_was_loaded_wrong_can_be_seen_by_its_logprobs(tmp_path: Path) -> None:
    server = ScriptedServer()
    await server.load("p1.v1-00", make_version(tmp_path / "v1", TINY, seed=1))
    right = await server.logprobs("p1.v1-00", (1,), (2,))
    server.faults.garbles = 0.5
    assert await server.logprobs("p1.v1-00", (1,), (2,)) == (right[0] - 0.5,)
    assert await server.logprobs("scripted", (1,), (2,)) == toy_logprobs(BASE, (1,), (2,))
