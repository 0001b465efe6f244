"""What every InferenceServer does. The scripted one runs here, a real vLLM in tests/real with the same class."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from claasbot.domain.completion import Completion, CompletionRequest, Sampling
from claasbot.domain.conversation import Message
from claasbot.errors import AdapterNotLoaded, ServerRefused
from claasbot.inference.scripted import ScriptedServer
from claasbot.ports import InferenceServer

from .conftest import SMOLLM2, TINY, LoraShape, make_version

_names = itertools.count()


def ask(text: str, model: str, *, max_tokens: int = 24, temperature: float = 0.0) -> CompletionRequest:
    return CompletionRequest(
        messages=(Message(role="user", content=text),),
        model=model,
        sampling=Sampling(temperature=temperature, top_p=1.0, max_tokens=max_tokens, seed=1),
    )


async def whole(server: InferenceServer, request: CompletionRequest) -> tuple[list[str], Completion]:
    parts = [part async for part in server.complete(request)]
    assert isinstance(parts[-1], Completion)
    assert all(isinstance(part, str) for part in parts[:-1])
    return [str(part) for part in parts[:-1]], parts[-1]


def mean_gap(left: tuple[float, ...], right: tuple[float, ...]) -> float:
    assert len(left) == len(right) > 0
    return sum(abs(a - b) for a, b in zip(left, right, strict=True)) / len(left)


class InferenceServerContract:
    """Subclasses bring `server`, and say how exact it is."""

    shape: LoraShape = TINY
    noise_nats = 0.0
    """Mean difference between two computations of the same logprobs."""

    @pytest.fixture
    def server(self) -> InferenceServer:
        raise NotImplementedError

    @pytest.fixture
    def folders(self, tmp_path: Path) -> Iterator[Path]:
        """Where versions lie that the server may read."""
        yield tmp_path

    def new_name(self) -> str:
        """No name is ever used twice on one server."""
        return f"p9.v{next(_names)}-contract"

    async def load(self, server: InferenceServer, folders: Path, *, seed: int = 1, scale: float = 0.02) -> str:
        name = self.new_name()
        await server.load(name, make_version(folders / name, self.shape, seed=seed, scale=scale))
        return name

    async def test_it_says_what_it_is(self, server: InferenceServer) -> None:
        info = await server.info()
        assert info.base_model
        assert info.max_model_len >= 512
        assert info.max_loras >= 2
        assert info.generation >= 1
        assert len(info.base_revision) == len(info.template_hash) == 64
        assert (await server.info()) == info

    async def test_the_deltas_are_the_text_and_the_completion_comes_last(self, server: InferenceServer) -> None:
        deltas, completion = await whole(
            server, ask("What is the capital of France?", (await server.info()).base_model)
        )
        assert len(deltas) >= 2
        assert "".join(deltas) == completion.text != ""

    async def test_every_token_has_an_id_and_a_logprob(self, server: InferenceServer) -> None:
        base = (await server.info()).base_model
        _, completion = await whole(server, ask("What is the capital of France?", base, max_tokens=64))
        assert len(completion.token_ids) == len(completion.logprobs) > 0
        assert all(logprob <= 0 for logprob in completion.logprobs)
        assert completion.model == base
        assert completion.finish_reason == "stop"
        assert 0 <= completion.first_token_s <= completion.total_s

    async def test_the_end_of_turn_is_the_last_token_of_an_answer_that_stopped(self, server: InferenceServer) -> None:
        base = (await server.info()).base_model
        _, first = await whole(server, ask("What is the capital of France?", base, max_tokens=64))
        _, second = await whole(server, ask("What is the capital of Italy?", base, max_tokens=64))
        assert first.finish_reason == second.finish_reason == "stop"
        assert first.token_ids[-1] == second.token_ids[-1]

    async def test_an_answer_ends_at_the_token_limit(self, server: InferenceServer) -> None:
        base = (await server.info()).base_model
        _, completion = await whole(server, ask("Count from one to one hundred.", base, max_tokens=5))
        assert completion.finish_reason == "length"
        assert len(completion.token_ids) == 5

    async def test_counted_tokens_are_those_of_the_prompt(self, server: InferenceServer) -> None:
        request = ask("Zażółć gęślą jaźń \U0001f9ed", (await server.info()).base_model)
        _, completion = await whole(server, request)
        assert await server.count_tokens(request.messages, {}) == len(completion.prompt_ids) > 0

    async def test_logprobs_agree_with_what_was_sampled(self, server: InferenceServer) -> None:
        base = (await server.info()).base_model
        _, completion = await whole(server, ask("Tell me about the sea.", base, temperature=0.7))
        again = await server.logprobs(base, completion.prompt_ids, completion.token_ids)
        assert mean_gap(again, completion.logprobs) <= self.noise_nats

    async def test_logprobs_are_of_the_given_ids_and_not_of_the_likely_ones(self, server: InferenceServer) -> None:
        base = (await server.info()).base_model
        _, completion = await whole(server, ask("What is the capital of France?", base))
        odd = tuple(reversed(completion.token_ids))
        values = await server.logprobs(base, completion.prompt_ids, odd)
        assert len(values) == len(odd)
        assert mean_gap(values, completion.logprobs) > 0.1

    async def test_an_adapter_changes_the_logprobs_and_a_zero_one_does_not(
        self, server: InferenceServer, folders: Path
    ) -> None:
        base = (await server.info()).base_model
        _, completion = await whole(server, ask("What is the capital of France?", base))
        ids = (completion.prompt_ids, completion.token_ids)
        moved = await self.load(server, folders, seed=1, scale=0.1)
        other = await self.load(server, folders, seed=2, scale=0.1)
        of_base = await server.logprobs(base, *ids)
        of_moved = await server.logprobs(moved, *ids)
        assert mean_gap(of_moved, of_base) > self.noise_nats
        assert mean_gap(of_moved, await server.logprobs(other, *ids)) > self.noise_nats
        assert mean_gap(of_moved, await server.logprobs(moved, *ids)) <= self.noise_nats

    async def test_an_adapter_answers_under_its_name(self, server: InferenceServer, folders: Path) -> None:
        name = await self.load(server, folders)
        assert name in await server.loaded()
        _, completion = await whole(server, ask("Hello", name))
        assert completion.model == name

    async def test_a_name_that_is_not_loaded_is_said_to_be_so(self, server: InferenceServer) -> None:
        name = self.new_name()
        with pytest.raises(AdapterNotLoaded, match=name):
            await whole(server, ask("Hello", name))
        with pytest.raises(AdapterNotLoaded, match=name):
            await server.logprobs(name, (5, 6), (7,))

    async def test_the_base_model_is_not_among_the_loaded(self, server: InferenceServer) -> None:
        assert (await server.info()).base_model not in await server.loaded()

    async def test_loading_the_same_folder_twice_under_its_name_is_fine(
        self, server: InferenceServer, folders: Path
    ) -> None:
        name = await self.load(server, folders)
        await server.load(name, folders / name)
        assert name in await server.loaded()

    async def test_a_name_never_stands_for_a_second_folder(self, server: InferenceServer, folders: Path) -> None:
        name = await self.load(server, folders)
        other = make_version(folders / "other", self.shape, seed=5)
        with pytest.raises(ServerRefused, match=name):
            await server.load(name, other)
        await server.unload(name)
        with pytest.raises(ServerRefused, match=name):
            await server.load(name, other)

    async def test_bad_folders_are_refused_and_the_server_goes_on(self, server: InferenceServer, folders: Path) -> None:
        name = self.new_name()
        with pytest.raises(ServerRefused, match=name):
            await server.load(name, folders / "absent")
        cut = make_version(folders / "cut", self.shape, seed=3)
        weights = cut / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        with pytest.raises(ServerRefused):
            await server.load(self.new_name(), cut)
        with pytest.raises(ServerRefused):
            await server.load(self.new_name(), make_version(folders / "wide", self.shape, seed=3, rank=512))
        assert name not in await server.loaded()
        await whole(server, ask("Hello", (await server.info()).base_model, max_tokens=4))

    async def test_what_is_unloaded_no_longer_answers(self, server: InferenceServer, folders: Path) -> None:
        name = await self.load(server, folders)
        await server.unload(name)
        assert name not in await server.loaded()
        with pytest.raises(AdapterNotLoaded):
            await whole(server, ask("Hello", name))

    async def test_unloading_what_is_not_there_is_fine(self, server: InferenceServer) -> None:
        await server.unload(self.new_name())

    async def test_a_request_that_runs_while_its_adapter_is_unloaded_finishes(
        self, server: InferenceServer, folders: Path
    ) -> None:
        name = await self.load(server, folders)
        stream = server.complete(ask("Tell me a story.", name, max_tokens=20))
        first = await anext(stream)
        await server.unload(name)
        rest = [part async for part in stream]
        assert isinstance(first, str)
        assert isinstance(rest[-1], Completion)
        assert rest[-1].finish_reason in ("stop", "length")

    async def test_a_forgotten_adapter_has_no_slot_and_its_folder_may_go(
        self, server: InferenceServer, folders: Path
    ) -> None:
        name = await self.load(server, folders)
        before = await server.checksum(name)
        await server.unload(name)
        assert await server.forget(name) is (await server.info()).forgets_adapters is True
        assert before is not None
        assert await server.checksum(name) is None
        for path in (folders / name).iterdir():
            path.unlink()
        (folders / name).rmdir()
        await whole(server, ask("Hello", (await server.info()).base_model, max_tokens=4))

    async def test_checksums_tell_adapters_apart(self, server: InferenceServer, folders: Path) -> None:
        one, same, other = [await self.load(server, folders, seed=seed) for seed in (1, 1, 2)]
        assert await server.checksum(one) == await server.checksum(same)
        assert await server.checksum(one) != await server.checksum(other)

    async def test_stopping_ends_with_what_was_sampled_so_far(self, server: InferenceServer) -> None:
        stop = asyncio.Event()
        request = ask("Count from one to one hundred.", (await server.info()).base_model, max_tokens=400)
        text, last = "", None
        async for part in server.complete(request, stop):
            if isinstance(part, Completion):
                last = part
            else:
                text += part
                stop.set()
        assert last is not None
        assert last.finish_reason == "abort"
        assert last.text == text != ""
        assert 0 < len(last.token_ids) == len(last.logprobs) < 400
        assert len(last.prompt_ids) > 0

    async def test_a_stop_before_the_first_token_gives_an_empty_completion(self, server: InferenceServer) -> None:
        stop = asyncio.Event()
        stop.set()
        request = ask("Count from one to one hundred.", (await server.info()).base_model, max_tokens=400)
        parts = [part async for part in server.complete(request, stop)]
        assert len(parts) == 1
        assert isinstance(parts[0], Completion)
        assert (parts[0].finish_reason, parts[0].text, parts[0].token_ids) == ("abort", "", ())

    async def test_closing_the_stream_aborts_on_the_server(self, server: InferenceServer) -> None:
        request = ask("Count from one to one hundred.", (await server.info()).base_model, max_tokens=400)
        async with aclosing(server.complete(request)) as stream:  # type: ignore[type-var]
            await anext(stream)
            assert await self.n_running(server) == 1
        async with asyncio.timeout(10):
            while await self.n_running(server) != 0:  # noqa: ASYNC110 - the server tells no event
                await asyncio.sleep(0.02)

    async def n_running(self, server: InferenceServer) -> int:
        """How many requests the server works on."""
        raise NotImplementedError

    async def test_many_at_once_keep_their_answers_apart(self, server: InferenceServer, folders: Path) -> None:
        base = (await server.info()).base_model
        names = [base, *[await self.load(server, folders, seed=seed, scale=0.1) for seed in (1, 2, 3)]]
        alone = [(await whole(server, ask("What is the capital of France?", name, max_tokens=12)))[1] for name in names]
        together = await asyncio.gather(
            *(whole(server, ask("What is the capital of France?", name, max_tokens=12)) for name in names)
        )
        for one, (_, other) in zip(alone, together, strict=True):
            n = next((i for i, (a, b) in enumerate(zip(one.token_ids, other.token_ids, strict=False)) if a != b), 5)
            n = max(n, 1)
            assert mean_gap(one.logprobs[:n], other.logprobs[:n]) <= 4 * self.noise_nats

    async def test_a_prompt_beyond_the_window_is_refused(self, server: InferenceServer) -> None:
        info = await server.info()
        with pytest.raises(ServerRefused):
            await whole(server, ask("word " * (2 * info.max_model_len), info.base_model))


class TestScripted(InferenceServerContract):
    @pytest.fixture
    async def server(self) -> AsyncIterator[ScriptedServer]:  # type: ignore[override]
        server = ScriptedServer()
        yield server
        await server.close()

    async def n_running(self, server: InferenceServer) -> int:
        assert isinstance(server, ScriptedServer)
        return server.seen.n_running


__all__ = ["SMOLLM2", "InferenceServerContract", "TestScripted"]
