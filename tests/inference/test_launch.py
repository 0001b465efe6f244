"""What our server is started with, and what is checked before. The real one starts in tests/real."""

import socket
from pathlib import Path

import pytest

from claasbot.errors import ModelMissing, PortInUse
from claasbot.inference.isolation import keeps_adapters_apart
from claasbot.inference.launch import LaunchedServer, ServerPlan, check_port, command, find_preloads
from claasbot.inference.model_folder import base_facts


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def plan(model: Path, **changes: object) -> ServerPlan:
    facts = {"base_model": "smollm2", "port": 18150, "accelerator": "cpu", "max_lora_rank": 16, "threads": "0-1"}
    return ServerPlan(model=model, **{**facts, **changes})  # type: ignore[arg-type]


def after(words: tuple[str, ...], flag: str) -> str:
    return words[words.index(flag) + 1]


def test_it_is_a_module_on_the_loopback_with_room_for_adapters(model: Path) -> None:
    words, _ = command(plan(model, max_loras=6, max_cpu_loras=64, max_model_len=4096), inherited={}, api_key="k")
    assert words[1:3] == ("-m", "vllm.entrypoints.openai.api_server")
    assert after(words, "--host") == "127.0.0.1"
    assert after(words, "--model") == str(model)
    assert after(words, "--served-model-name") == "smollm2"
    assert after(words, "--max-loras") == "6"
    assert after(words, "--max-cpu-loras") == "64"
    assert after(words, "--max-model-len") == "4096"
    assert after(words, "--logprobs-mode") == "raw_logprobs"
    assert after(words, "--generation-config") == "vllm"
    assert "--enable-lora" in words


@pytest.mark.parametrize(("rank", "slot"), [(1, "8"), (8, "8"), (9, "16"), (16, "16"), (100, "128"), (600, "600")])
def test_slots_are_of_the_next_rank_that_vllm_knows(model: Path, rank: int, slot: str) -> None:
    words, _ = command(plan(model, max_lora_rank=rank), inherited={}, api_key="k")
    assert after(words, "--max-lora-rank") == slot


def test_no_fewer_adapters_in_memory_than_in_slots(model: Path) -> None:
    words, _ = command(plan(model, max_loras=6, max_cpu_loras=2), inherited={}, api_key="k")
    assert after(words, "--max-cpu-loras") == "6"


def test_the_cpu_server_gets_its_memory_threads_and_libraries(model: Path) -> None:
    _, environment = command(
        plan(model, kv_cache_gib=2, threads="0-3"),
        inherited={"PATH": "/bin", "LD_PRELOAD": "/mine.so"},
        api_key="k",
        preloads=(Path("/tcmalloc.so"), Path("/iomp.so")),
    )
    assert environment == {
        "PATH": "/bin",
        "LD_PRELOAD": "/tcmalloc.so:/iomp.so:/mine.so",
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_CPU_OMP_THREADS_BIND": "0-3",
        "TORCHDYNAMO_DISABLE": "1",
        "VLLM_API_KEY": "k",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "NO_COLOR": "1",
    }


def test_the_gpu_server_gets_its_share_and_none_of_the_cpu_settings(model: Path) -> None:
    words, environment = command(
        plan(model, accelerator="gpu", gpu_memory_share=0.45), inherited={}, api_key="k", preloads=(Path("/x.so"),)
    )
    assert after(words, "--gpu-memory-utilization") == "0.45"
    assert not {
        name for name in environment if name.startswith("VLLM_CPU") or name in ("LD_PRELOAD", "TORCHDYNAMO_DISABLE")
    }
    cpu_words, _ = command(plan(model), inherited={}, api_key="k")
    assert "--gpu-memory-utilization" not in cpu_words


def test_the_key_is_no_argument_and_our_settings_stay_here(model: Path) -> None:
    words, environment = command(plan(model), inherited={"CLAASBOT_TELEGRAM_TOKEN": "1:a"}, api_key="secret")
    assert "secret" not in words
    assert "1:a" not in environment.values()


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        (None, None),
        ("", "claasbot_cpu_lora"),
        ("other", "other,claasbot_cpu_lora"),
        ("claasbot_cpu_lora,other", "other,claasbot_cpu_lora"),
    ],
)
def test_a_list_of_plugins_never_leaves_ours_out(model: Path, wanted: str | None, given: str | None) -> None:
    inherited = {} if wanted is None else {"VLLM_PLUGINS": wanted}
    _, environment = command(plan(model), inherited=inherited, api_key="k")
    assert environment.get("VLLM_PLUGINS") == given


def test_libraries_are_preloaded_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "opt").mkdir()
    (tmp_path / "lib/libiomp5.so").touch()
    (tmp_path / "opt/libtcmalloc_minimal.so.4").touch()
    assert find_preloads(tmp_path) == (tmp_path / "opt/libtcmalloc_minimal.so.4", tmp_path / "lib/libiomp5.so")
    assert tmp_path / "nothing" not in {path.parent for path in find_preloads(tmp_path / "nothing")}


def test_a_port_that_is_taken_names_its_setting() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortInUse, match=rf"port {port} is taken .*set server\.port"):
            check_port(port)
    check_port(port)


async def test_a_taken_port_stops_the_start_before_a_process_is_made(model: Path, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        server = LaunchedServer(plan(model, port=other.getsockname()[1], log_path=tmp_path / "log"))
        with pytest.raises(PortInUse):
            await server.start()
        assert server.child.generation == 0
        await server.close()


@pytest.mark.parametrize(
    ("report", "version", "does"),
    [
        ({"cpu_lora": True, "version": "0.32.0+cpu"}, None, True),
        ({"cpu_lora": False, "version": "0.32.0+cpu", "wrappers": ["vllm.x.PunicaWrapperCPU"]}, None, False),
        ({"cpu_lora": False, "version": "0.32.0", "wrappers": ["vllm.x.PunicaWrapperGPU"]}, None, True),
        ({"cpu_lora": False, "version": "0.32.0", "wrappers": ["other.SomeWrapper"]}, None, False),
        ({"cpu_lora": False, "version": "0.33.0+cpu"}, None, True),
        ({"cpu_lora": False, "version": "1.0"}, None, True),
        ({}, "0.33.0", False),
        (None, "0.32.0", False),
        (None, "0.33.1", True),
        (None, None, False),
    ],
)
def test_a_cpu_server_without_our_plugin_mixes_adapters(
    report: dict[str, object] | None, version: str | None, does: bool
) -> None:
    assert keeps_adapters_apart(report, version) is does


def test_a_missing_model_names_its_setting(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match=r"no base model at .*server\.model"):
        LaunchedServer(plan(tmp_path / "nothing"))


def test_a_model_without_a_template_is_missing_something(model: Path) -> None:
    assert base_facts("smollm2", model).name == "smollm2"
    (model / "chat_template.jinja").unlink()
    with pytest.raises(ModelMissing, match="no chat template"):
        base_facts("smollm2", model)
