"""VllmServer against a server that fails: what is said, what is raised, what is cut off. The rest is in tests/real."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path, PurePosixPath

import pytest
from aiohttp import web

from claasbot.domain.completion import Completion, CompletionRequest, Sampling
from claasbot.domain.conversation import Message
from claasbot.errors import AdapterNotLoaded, AdaptersMix, ServerBroke, ServerDown, ServerRefused
from claasbot.inference.connection import Patience
from claasbot.inference.vllm import BaseFacts, Mount, VllmServer
from tests.inference.fake_vllm import FakeVllm, card, first, serving, token

BASE = BaseFacts(name="base", revision="r" * 64, template_hash="t" * 64)
HURRIED = Patience(connect_s=0.2, call_s=0.2, load_s=0.2, silence_s=0.2, forget_s=0.1)
PATIENT = Patience(forget_s=0.1)
REQUEST = CompletionRequest(
    messages=(Message(role="user", content="Hello"),),
    model="base",
    sampling=Sampling(temperature=0.5, top_p=0.8, max_tokens=7, seed=3),
    template_options={"enable_thinking": False},
)
CHAT = "/v1/chat/completions"


@pytest.fixture
async def fake() -> AsyncIterator[FakeVllm]:
    async with serving(FakeVllm()) as fake:
        yield fake


@pytest.fixture
async def server(fake: FakeVllm) -> AsyncIterator[VllmServer]:
    server = VllmServer(BASE, url=fake.url, api_key="secret", patience=PATIENT)
    yield server
    await server.close()


@pytest.fixture
async def hurried(fake: FakeVllm) -> AsyncIterator[VllmServer]:
    server = VllmServer(BASE, url=fake.url, patience=HURRIED)
    yield server
    await server.close()


async def whole(server: VllmServer, request: CompletionRequest = REQUEST) -> list[str | Completion]:
    return [part async for part in server.complete(request)]


async def forever() -> None:
    await asyncio.Event().wait()


# --- what is asked


async def test_a_completion_asks_for_its_evidence(fake: FakeVllm, server: VllmServer) -> None:
    fake.answers[CHAT] = fake.streams(first([1, 2]), token("Hi", 5, finish="stop"))
    await whole(server)
    assert fake.seen[CHAT] == [
        {
            "model": "base",
            "messages": [{"role": "user", "content": "Hello"}],
            "chat_template_kwargs": {"enable_thinking": False},
            "n": 1,
            "stream": True,
            "logprobs": True,
            "top_logprobs": 0,
            "return_token_ids": True,
            "temperature": 0.5,
            "top_p": 0.8,
            "max_tokens": 7,
            "seed": 3,
        }
    ]
    assert fake.headers[0]["Authorization"] == "Bearer secret"


async def test_an_adapter_is_never_loaded_in_place(fake: FakeVllm, server: VllmServer, tmp_path: Path) -> None:
    fake.answers["/v1/load_lora_adapter"] = (200, "Success")
    await server.load("p1.v1-00", tmp_path)
    assert fake.seen["/v1/load_lora_adapter"] == [{"lora_name": "p1.v1-00", "lora_path": str(tmp_path)}]


async def test_logprobs_ask_for_prompt_logprobs_of_ids(fake: FakeVllm, server: VllmServer) -> None:
    rows = [None, *({str(token_id): {"logprob": -token_id / 10}} for token_id in (2, 3, 4))]
    fake.answers["/v1/completions"] = (200, {"choices": [{"prompt_logprobs": rows}]})
    assert await server.logprobs("p1.v1-00", (1, 2), (3, 4)) == (-0.3, -0.4)
    asked = fake.seen["/v1/completions"][0]
    assert asked["prompt"] == [1, 2, 3, 4]
    assert asked["prompt_logprobs"] == 0
    assert asked["model"] == "p1.v1-00"
    assert "cache_salt" not in asked


async def test_a_mounted_folder_is_named_as_the_server_sees_it(fake: FakeVllm, tmp_path: Path) -> None:
    fake.answers["/v1/load_lora_adapter"] = (200, "Success")
    mount = Mount(here=tmp_path, there=PurePosixPath("/adapters"))
    server = VllmServer(BASE, url=fake.url, mount=mount)
    await server.load("p1.v1-00", tmp_path / "p1" / "v1")
    with pytest.raises(ServerRefused, match="which the server mounts"):
        await server.load("p1.v2-00", tmp_path.parent / "elsewhere")
    await server.close()
    assert fake.seen["/v1/load_lora_adapter"][0]["lora_path"] == "/adapters/p1/v1"


async def test_a_unix_socket_will_do(tmp_path: Path) -> None:
    async with serving(FakeVllm(), socket=tmp_path / "s"):
        server = VllmServer(BASE, socket=tmp_path / "s")
        assert (await server.info()).base_model == "base"
        await server.close()


# --- what comes back


async def test_every_chunk_adds_text_ids_and_logprobs(fake: FakeVllm, server: VllmServer) -> None:
    fake.answers[CHAT] = fake.streams(
        first([1, 2, 3]),
        token("Good", 10, logprob=-0.1),
        token("", 11, logprob=-0.2),  # half a character
        token(" day", 12, 13, logprob=-0.3),
        token(None, 2, logprob=-0.4, finish="stop"),
        {"choices": [], "usage": {"prompt_tokens": 3}},
    )
    *deltas, completion = await whole(server)
    assert deltas == ["Good", " day"]
    assert isinstance(completion, Completion)
    assert completion.text == "Good day"
    assert completion.prompt_ids == (1, 2, 3)
    assert completion.token_ids == (10, 11, 12, 13, 2)
    assert completion.logprobs == (-0.1, -0.2, -0.3, -0.3, -0.4)
    assert completion.finish_reason == "stop"


async def test_a_line_with_the_ids_of_a_long_prompt_is_read(fake: FakeVllm, server: VllmServer) -> None:
    ids = list(range(100_000, 200_000))  # 700 KiB in one line; StreamReader.readline gives up at 128
    fake.answers[CHAT] = fake.streams(first(ids), token("Hi", 5, finish="stop"))
    completion = (await whole(server))[-1]
    assert isinstance(completion, Completion)
    assert completion.prompt_ids == tuple(ids)


async def test_comments_and_other_fields_of_the_stream_are_passed_over(fake: FakeVllm, server: VllmServer) -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        events = [json.dumps(event) for event in (first([1]), token("Hi", 5, finish="stop"))]
        body = ": keep-alive\r\n\r\nevent: x\r\n" + "".join(f"data:{event}\r\n\r\n" for event in events)
        return web.Response(text=body + "data: [DONE]\r\n\r\n", content_type="text/event-stream")

    fake.answers[CHAT] = handle
    assert (await whole(server))[0] == "Hi"


async def test_an_answer_that_the_server_aborts_is_a_completion(fake: FakeVllm, server: VllmServer) -> None:
    fake.answers[CHAT] = fake.streams(first([1]), token("Hi", 5), token("", finish="abort"))
    completion = (await whole(server))[-1]
    assert isinstance(completion, Completion)
    assert completion.finish_reason == "abort"
    assert not completion.is_whole


async def test_stopping_cuts_the_connection_also_while_the_server_is_silent(fake: FakeVllm, server: VllmServer) -> None:
    stop = asyncio.Event()
    fake.answers[CHAT] = fake.streams(first([1]), token("Hi", 5), then=forever)
    parts = []
    async for part in server.complete(REQUEST, stop):
        parts.append(part)
        stop.set()
    completion = parts[-1]
    assert isinstance(completion, Completion)
    assert (completion.text, completion.token_ids, completion.finish_reason) == ("Hi", (5,), "abort")
    await cut(fake)


async def test_closing_the_stream_cuts_the_connection(fake: FakeVllm, server: VllmServer) -> None:
    fake.answers[CHAT] = fake.streams(first([1]), token("Hi", 5), then=forever)
    async with aclosing(server.complete(REQUEST)) as stream:
        assert await anext(stream) == "Hi"
    await cut(fake)


async def test_cancelling_cuts_the_connection(fake: FakeVllm, server: VllmServer) -> None:
    fake.answers[CHAT] = fake.streams(first([1]), token("Hi", 5), then=forever)
    got = asyncio.Event()

    async def read() -> None:
        async for _ in server.complete(REQUEST, asyncio.Event()):
            got.set()

    reading = asyncio.create_task(read())
    await got.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await cut(fake)


async def cut(fake: FakeVllm) -> None:
    async with asyncio.timeout(5):
        while fake.n_cut == 0:  # noqa: ASYNC110 - the other side of a socket
            await asyncio.sleep(0.002)


# --- what goes wrong


async def test_nobody_there_is_down() -> None:
    server = VllmServer(BASE, url="http://127.0.0.1:1", patience=HURRIED)
    for call in (server.info(), server.loaded(), whole(server), server.count_tokens((), {}), server.forget("x")):
        with pytest.raises(ServerDown, match=r"no answer from the server at http://127\.0\.0\.1:1"):
            await call
    await server.close()


async def test_silence_is_down(fake: FakeVllm, hurried: VllmServer) -> None:
    async def silent(request: web.Request) -> web.StreamResponse:
        await forever()
        raise AssertionError

    fake.answers |= {"/v1/models": silent, "/tokenize": silent, CHAT: silent, "/v1/load_lora_adapter": silent}
    for call in (hurried.info(), hurried.count_tokens((), {}), whole(hurried), hurried.load("p1.v1-00", Path("/a"))):
        with pytest.raises(ServerDown, match=r"was silent for 0\.2 s"):
            await call


async def test_silence_in_the_middle_of_a_stream_is_down(fake: FakeVllm, hurried: VllmServer) -> None:
    fake.answers[CHAT] = fake.streams(first([1]), token("Hi", 5), then=forever)
    with pytest.raises(ServerDown, match="was silent"):
        await whole(hurried)


async def test_half_a_stream_is_down_and_never_a_completion(fake: FakeVllm, server: VllmServer) -> None:
    for handler in (
        fake.streams(first([1]), token("Hi", 5), ends=False),
        fake.streams(first([1]), token("Hi", 5)),  # [DONE] without a reason
        fake.streams(first([1]), token("Hi", 5), {"error": {"message": "EngineDead", "code": 500}}),
        fake.streams(),
    ):
        fake.answers[CHAT] = handler
        with pytest.raises(ServerDown):
            await whole(server)


async def test_another_program_is_refused(fake: FakeVllm, server: VllmServer) -> None:
    async def html(request: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>It works!</html>", content_type="text/html")

    fake.answers |= {"/v1/models": html, "/tokenize": (200, {"n": 3}), CHAT: fake.streams("not json")}
    fake.answers["/v1/completions"] = (200, {"choices": [{"text": "Hi"}]})
    for call in (
        server.info(),
        server.count_tokens((), {}),
        whole(server),
        server.logprobs("base", (1,), (2,)),
    ):
        with pytest.raises(ServerRefused, match="is this vLLM"):
            await call


async def test_a_server_without_token_ids_is_refused(fake: FakeVllm, server: VllmServer) -> None:
    bare = {"choices": [{"delta": {"content": "Hi"}, "logprobs": {"content": [{"logprob": -1.0}]}}]}
    no_prompt = token("Hi", 5, finish="stop")
    for events in ((bare,), (no_prompt,)):
        fake.answers[CHAT] = fake.streams(*events)
        with pytest.raises(ServerRefused, match=r"vLLM 0\.26 or later"):
            await whole(server)


async def test_a_model_that_is_not_served_is_not_loaded(fake: FakeVllm, server: VllmServer) -> None:
    missing = (404, {"error": {"message": "The model `p1.v1` does not exist.", "type": "NotFoundError", "code": 404}})
    fake.answers |= {CHAT: missing, "/v1/completions": missing}
    for call in (whole(server), server.logprobs("base", (1,), (2,))):
        with pytest.raises(AdapterNotLoaded, match="load it first"):
            await call


@pytest.mark.parametrize(
    ("status", "message", "raised"),
    [
        (400, "prompt is too long", ServerRefused),
        (401, "Unauthorized", ServerRefused),
        (500, "EngineCore encountered an issue", ServerDown),
        (503, "paused", ServerDown),
        (429, "too many requests", ServerDown),
    ],
)
async def test_refusals_say_what_the_server_said(
    fake: FakeVllm, server: VllmServer, status: int, message: str, raised: type[Exception]
) -> None:
    fake.answers |= {path: (status, {"error": {"message": message}}) for path in (CHAT, "/tokenize", "/v1/models")}
    for call in (whole(server), server.count_tokens((), {}), server.loaded()):
        with pytest.raises(raised, match=message) as error:
            await call
        assert error.type is raised


async def test_an_error_inside_the_server_refuses_a_call_and_breaks_an_answer(
    fake: FakeVllm, server: VllmServer
) -> None:
    """An answer is tried again a few times: the next attempt may go well."""
    message = "LoRA rank 32 is greater than max_lora_rank 16"
    fake.answers |= {path: (500, {"error": {"message": message}}) for path in (CHAT, "/tokenize")}
    with pytest.raises(ServerRefused, match=message):
        await server.count_tokens((), {})
    with pytest.raises(ServerBroke, match=message):
        await whole(server)


async def test_a_server_of_another_model_names_the_setting(fake: FakeVllm, server: VllmServer) -> None:
    fake.answers["/v1/models"] = (200, {"data": [card("other"), card("base", parent="other")]})
    with pytest.raises(ServerRefused, match=r"only \['other'\]; set server\.model"):
        await server.info()


async def test_a_connection_that_the_server_closed_is_opened_again(fake: FakeVllm, server: VllmServer) -> None:
    """uvicorn answers an exception with 500 and then closes a connection that we keep."""

    async def answer_and_close(request: web.Request) -> web.StreamResponse:
        response = web.json_response({"error": {"message": "boom"}}, status=500)
        await response.prepare(request)
        await response.write_eof()
        assert request.transport is not None
        request.transport.close()
        return response

    fake.answers |= {"/collective_rpc": answer_and_close, "/tokenize": (200, {"count": 3})}
    for _ in range(10):
        assert await server.forget("x") is False
        assert await server.count_tokens((), {}) == 3


# --- adapters


async def test_loading_again_after_an_answer_was_lost_is_fine(fake: FakeVllm, server: VllmServer) -> None:
    fake.answers["/v1/load_lora_adapter"] = (400, {"error": {"message": "already been loaded"}})
    fake.answers["/v1/models"] = (200, {"data": [card("base"), card("p1.v1-00", parent="base", root="/a")]})
    await server.load("p1.v1-00", Path("/a"))
    with pytest.raises(ServerRefused, match="already been loaded"):
        await server.load("p1.v1-01", Path("/b"))
    assert await server.loaded() == {"p1.v1-00"}


async def test_a_server_without_loading_says_which_variable_to_set(fake: FakeVllm, server: VllmServer) -> None:
    for call in (server.load("p1.v1-00", Path("/a")), server.unload("p1.v1-00")):
        with pytest.raises(ServerRefused, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"):
            await call


async def test_a_version_that_is_gone_means_another_generation(fake: FakeVllm, server: VllmServer) -> None:
    fake.answers |= {"/v1/load_lora_adapter": (200, "Success"), "/v1/unload_lora_adapter": (200, "Success")}
    there = {"data": [card("base"), card("p1.v1-00", parent="base")]}
    fake.answers["/v1/models"] = (200, there)
    before = (await server.info()).generation
    await server.load("p1.v1-00", Path("/a"))
    assert (await server.info()).generation == before
    fake.answers["/v1/models"] = (200, {"data": [card("base")]})
    assert (await server.info()).generation == before + 1
    assert (await server.info()).generation == before + 1
    fake.answers["/v1/models"] = (200, there)
    await server.load("p1.v1-00", Path("/a"))
    await server.unload("p1.v1-00")
    fake.answers["/v1/models"] = (200, {"data": [card("base")]})
    assert (await server.info()).generation == before + 1


async def test_without_our_extension_nothing_is_forgotten_or_summed(fake: FakeVllm, server: VllmServer) -> None:
    for answer in ((404, {"detail": "Not Found"}), (500, {"error": {"message": "no attribute 'claasbot_x'"}})):
        fake.answers["/collective_rpc"] = answer
        assert await server.forget("p1.v1-00") is False
        assert await server.checksum("p1.v1-00") is None
    assert not (await server.info()).forgets_adapters


async def test_with_our_extension_they_are(fake: FakeVllm, server: VllmServer) -> None:
    async def rpc(request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        results = {
            "claasbot_plugin_report": {"cpu_lora": True},
            "claasbot_forget_adapter": {"name": asked["args"], "dropped": [], "cleared_slots": []},
            "claasbot_adapter_checksum": {"name": "x", "slot": 0, "checksum": "ab" * 32},
        }
        return web.json_response({"results": [results[asked["method"]]]})

    fake.answers["/collective_rpc"] = rpc
    assert (await server.info()).forgets_adapters
    assert await server.plugin_report() == {"cpu_lora": True}
    assert await server.forget("p1.v1-00") is True
    assert await server.checksum("p1.v1-00") == "ab" * 32
    assert fake.seen["/collective_rpc"][-1]["args"] == ["p1.v1-00"]


async def test_a_slot_that_is_still_in_use_is_asked_for_again(fake: FakeVllm, server: VllmServer) -> None:
    busy = [True]

    async def rpc(request: web.Request) -> web.StreamResponse:
        result = {"error": "'x' answers 1 running request(s)"} if busy else {"name": "x", "dropped": []}
        busy.clear()
        return web.json_response({"results": [result]})

    fake.answers["/collective_rpc"] = rpc
    assert await server.forget("x") is True
    assert len(fake.seen["/collective_rpc"]) == 2

    fake.answers["/collective_rpc"] = (200, {"results": [{"error": "'x' answers 1 running request(s)"}]})
    assert await server.forget("x") is False
    assert await server.checksum("x") is None


async def test_an_adapter_is_never_loaded_where_it_may_reach_somebody_else(fake: FakeVllm, server: VllmServer) -> None:
    fake.answers |= {"/version": (200, {"version": "0.32.0"}), "/v1/load_lora_adapter": (200, "Success")}
    with pytest.raises(AdaptersMix, match="claasbot_cpu_lora"):
        await server.load("p1.v1-00", Path("/a"))
    assert "/v1/load_lora_adapter" not in fake.seen
    fake.answers["/collective_rpc"] = (200, {"results": [{"cpu_lora": True, "version": "0.32.0"}]})  # mended, restarted
    await server.load("p1.v1-00", Path("/a"))
    fake.answers["/collective_rpc"] = (404, {"detail": "Not Found"})  # and started without it once more
    with pytest.raises(AdaptersMix):
        await server.load("p1.v2-00", Path("/b"))


async def test_a_server_in_good_health_has_no_trouble(fake: FakeVllm, server: VllmServer) -> None:
    assert await server.trouble() is None


async def test_the_trouble_of_a_server_is_one_line_that_says_what_it_is(fake: FakeVllm, hurried: VllmServer) -> None:
    async def silent(request: web.Request) -> web.StreamResponse:
        await forever()
        raise AssertionError

    for path, answer, word in (
        ("/version", (200, {"version": "0.32.0"}), "claasbot_cpu_lora"),
        ("/v1/models", (200, {"data": [card("other")]}), "server.model"),
        ("/health", silent, "silent"),
        ("/health", (503, {"detail": "engine is dead"}), "engine is dead"),
    ):
        fake.answers[path] = answer
        trouble = await hurried.trouble()
        assert trouble is not None
        assert word in trouble
        assert "\n" not in trouble
    nobody = VllmServer(BASE, url="http://127.0.0.1:1", patience=HURRIED)
    assert "no answer" in str(await nobody.trouble())
    await nobody.close()


async def test_one_token_of_the_window_is_kept_for_scoring(fake: FakeVllm, server: VllmServer) -> None:
    assert (await server.info()).max_model_len == 4095
