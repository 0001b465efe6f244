"""No person's adapter reaches another person's answer (promise 6), in one batch, against the real server in float32.

Every adapter slot is full: stock vLLM 0.32 reads "no adapter" as the last slot, so an empty one would hide the leak.
Both servers have our flags; one has our plugin, the other is as vLLM ships it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from claasbot.adapter_checksum import expected_checksum
from claasbot.inference.launch import ServerPlan, command, find_preloads
from tests.real.bot_process import free_port

BASE = "base"
ADAPTERS = ("p1.v1-aaaaaaaa", "p2.v1-bbbbbbbb", "p3.v1-cccccccc", "p4.v1-dddddddd")
PROMPTS = ("The capital of France is", "A recipe for bread begins with", "My favourite colour is")
N_TOKENS = 8
SAME_NATS = 1e-3
READY_S = 300.0


@dataclass(frozen=True)
class Answer:
    """What one request sampled, greedily."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            self.url + path,
            data=json.dumps(body or {}).encode(),
            headers={"Authorization": "Bearer key", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as response:
            text = response.read()
        return json.loads(text) if text.startswith((b"{", b"[")) else text.decode()

    def rpc(self, method: str, *args: str) -> Any:
        return self.post("/collective_rpc", {"method": method, "args": list(args)})["results"][0]

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(self.url + "/health", timeout=5) as response:
                return response.status == 200
        except OSError:
            return False

    def wait(self) -> None:
        deadline = time.monotonic() + READY_S
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the server did not start:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.2)

    def end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(30)

    def complete(self, model: str, prompt: str, n_tokens: int = N_TOKENS) -> Answer:
        body = {
            "model": model,
            "prompt": prompt,
            "max_tokens": n_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "logprobs": 0,
            "return_token_ids": True,
        }
        choice = self.post("/v1/completions", body)["choices"][0]
        return Answer(tuple(choice["token_ids"]), tuple(choice["logprobs"]["token_logprobs"]))

    def together(self, requests: list[tuple[str, str]]) -> list[Answer]:
        """All in one batch from the first token on: they queue while the scheduler is paused."""
        self.post("/pause?mode=keep")
        with ThreadPoolExecutor(len(requests)) as pool:
            pending = [pool.submit(self.complete, model, prompt) for model, prompt in requests]
            time.sleep(0.5)
            self.post("/resume")
            return [answer.result() for answer in pending]


def start(model: Path, folder: Path, name: str, **environment: str) -> Server:
    plan = ServerPlan(
        model=model,
        base_model=BASE,
        port=free_port(),
        accelerator="cpu",
        dtype="float32",
        max_lora_rank=16,
        max_loras=len(ADAPTERS),
        max_model_len=512,
        log_path=folder / f"{name}.log",
    )
    argv, planned = command(plan, inherited=os.environ, api_key="key", preloads=find_preloads())
    with plan.log_path.open("wb") as log:
        process = subprocess.Popen(
            argv, env=planned | environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    return Server(process, f"http://127.0.0.1:{plan.port}", plan.log_path)


@dataclass(frozen=True)
class Servers:
    plugin: Server
    stock: Server


def write_adapter(folder: Path, model: Path, seed: int) -> None:
    """Random matrices, strong enough that no two adapters answer alike; ranks differ, so that some are padded."""
    config = json.loads((model / "config.json").read_text())
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    keys = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    sides = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (hidden, keys),
        "self_attn.v_proj": (hidden, keys),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (hidden, inner),
        "mlp.up_proj": (hidden, inner),
        "mlp.down_proj": (inner, hidden),
    }
    rank = (16, 8, 4, 16)[seed % 4]
    random = np.random.default_rng(seed)
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        for name, (n_in, n_out) in sides.items():
            stem = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{stem}.lora_A.weight"] = random.normal(0, n_in**-0.5, (rank, n_in)).astype(np.float32)
            tensors[f"{stem}.lora_B.weight"] = random.normal(0, 0.1, (n_out, rank)).astype(np.float32)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": [name.partition(".")[2] for name in sides],
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings))


@pytest.fixture(scope="module")
def folders(base_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate(ADAPTERS):
        write_adapter(home / name, base_model_folder, seed)
    return {name: home / name for name in ADAPTERS}


@pytest.fixture(scope="module")
def servers(
    base_model_folder: Path, folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Servers]:
    """Both started at once: most of a start is reading Python, on one core."""
    home = tmp_path_factory.mktemp("servers")
    pair = Servers(
        plugin=start(base_model_folder, home, "plugin"),
        stock=start(base_model_folder, home, "stock", VLLM_PLUGINS=""),
    )
    try:
        for server in (pair.plugin, pair.stock):
            server.wait()
            for name, folder in folders.items():
                server.post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})
        yield pair
    finally:
        pair.plugin.end()
        pair.stock.end()


def alone(server: Server, requests: list[tuple[str, str]]) -> list[Answer]:
    return [server.complete(model, prompt) for model, prompt in requests]


def difference(one: Answer, other: Answer) -> float:
    """Largest difference of a logprob, in nats; infinite where the tokens differ."""
    if one.token_ids != other.token_ids:
        return float("inf")
    return max(abs(a - b) for a, b in zip(one.logprobs, other.logprobs, strict=True))


def test_base_and_four_adapters_in_one_batch_answer_as_they_do_alone(servers: Servers) -> None:
    requests = [(model, prompt) for prompt in PROMPTS for model in (ADAPTERS[0], BASE, *ADAPTERS[1:])]
    separate = alone(servers.plugin, requests)
    for request, one, other in zip(requests, separate, servers.plugin.together(requests), strict=True):
        assert difference(one, other) <= SAME_NATS, request
    assert len({answer.token_ids for answer in separate}) == len(requests)  # else the adapters would prove nothing


def test_without_the_plugin_a_base_request_gets_somebody_elses_adapter(servers: Servers) -> None:
    """What the plugin is for. Fails when vLLM mends it: then the plugin may go."""
    assert servers.stock.rpc("claasbot_plugin_report")["cpu_lora"] is False
    requests = [(BASE, prompt) for prompt in PROMPTS]
    separate = alone(servers.stock, requests)
    batch = servers.stock.together([(ADAPTERS[0], "Good morning"), *requests])[1:]
    assert all(difference(one, other) > 0.1 for one, other in zip(separate, batch, strict=True))
    as_base = alone(servers.plugin, requests)
    assert all(difference(one, other) <= SAME_NATS for one, other in zip(separate, as_base, strict=True))


def test_the_worker_reports_the_plugin_and_every_adapter_with_its_slot(servers: Servers) -> None:
    assert servers.plugin.rpc("claasbot_plugin_report")["cpu_lora"] is True
    listed = servers.plugin.rpc("claasbot_list_adapters")
    held = sorted((adapter["name"], adapter["slot"]) for adapter in listed)  # the worker lists the least used first
    assert held == list(zip(ADAPTERS, range(4), strict=True))


def test_each_slot_holds_its_own_folder(servers: Servers, folders: dict[str, Path]) -> None:
    for name, folder in folders.items():
        checksum = servers.plugin.rpc("claasbot_adapter_checksum", name)["checksum"]
        assert checksum == expected_checksum(folder, "float32")


def test_an_adapter_is_forgotten_when_its_answer_is_done_and_not_before(servers: Servers) -> None:
    server, name = servers.plugin, ADAPTERS[-1]
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.complete, name, PROMPTS[0], 64)
        while not any(adapter["n_running"] for adapter in server.rpc("claasbot_list_adapters")):
            assert not answer.done()
        server.post("/v1/unload_lora_adapter", {"lora_name": name})
        assert "running" in server.rpc("claasbot_forget_adapter", name)["error"]
        assert len(answer.result().token_ids) == 64
    while "error" in (forgotten := server.rpc("claasbot_forget_adapter", name)):
        time.sleep(0.05)  # the worker hears of the end one step later
    assert [copy["slot"] for copy in forgotten["dropped"]] == forgotten["cleared_slots"] == [3]
    assert name not in {adapter["name"] for adapter in server.rpc("claasbot_list_adapters")}
    assert "error" in server.rpc("claasbot_adapter_checksum", name)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        server.complete(name, PROMPTS[0])
