"""What the doctor hears of an attached server."""

from aiohttp import web

from claasbot.inference.probe import probe
from tests.inference.fake_vllm import FakeVllm, card, first, serving, token

NEEDED = {"base_model": "base", "max_loras": 6}


async def test_a_complete_server_lacks_nothing() -> None:
    async with serving(FakeVllm()) as fake:

        async def metrics(request: web.Request) -> web.StreamResponse:
            return web.Response(text='# HELP x\nvllm:lora_requests_info{max_lora="6",running_lora_adapters=""} 1.7e9\n')

        fake.answers |= {
            "/v1/chat/completions": fake.streams(first([1]), token("Hi", 5, finish="length")),
            "/v1/unload_lora_adapter": (
                404,
                {"error": {"message": "The lora adapter 'claasbot-probe-no-such-adapter' cannot be found."}},
            ),
            "/collective_rpc": (200, {"results": [{"cpu_lora": True, "version": "0.32.0"}]}),
            "/version": (200, {"version": "0.32.0"}),
            "/metrics": metrics,
        }
        found = await probe(fake.url)
    assert found.trouble is None
    assert found.lacks(**NEEDED) == ()
    assert (found.version, found.max_loras, found.max_model_len) == ("0.32.0", 6, 4096)
    assert found.plugins == {"cpu_lora": True, "version": "0.32.0"}
    assert "/v1/load_lora_adapter" not in fake.seen
    assert "16 adapter slots" not in str(found.lacks(base_model="base", max_loras=6))
    assert "server.max_loras" in found.lacks(base_model="base", max_loras=8)[0]


async def test_a_bare_server_lacks_all_of_it_each_with_what_to_do() -> None:
    async with serving(FakeVllm()) as fake:
        fake.answers["/v1/models"] = (200, {"data": [card("other")]})
        lacks = (await probe(fake.url)).lacks(**NEEDED)
    assert len(lacks) == 4
    for line, word in zip(
        lacks,
        ("server.model", "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1", "0.26", "VLLM_SERVER_DEV_MODE=1"),
        strict=True,
    ):
        assert word in line


async def test_a_server_that_may_mix_adapters_is_told_with_what_to_do() -> None:
    async with serving(FakeVllm()) as fake:
        fake.answers["/version"] = (200, {"version": "0.32.0"})
        lacks = (await probe(fake.url)).lacks(**NEEDED)
        assert sum("claasbot_cpu_lora" in line and "base model answers" in line for line in lacks) == 1
        fake.answers["/collective_rpc"] = (200, {"results": [{"cpu_lora": True, "version": "0.32.0"}]})
        lacks = (await probe(fake.url)).lacks(**NEEDED)
        assert not any("claasbot_cpu_lora" in line for line in lacks)


async def test_no_server_is_one_line_and_no_exception() -> None:
    found = await probe("http://127.0.0.1:1")
    assert found.trouble is not None
    assert found.lacks(**NEEDED) == (found.trouble,)
