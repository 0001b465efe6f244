"""The real vLLM server and the real trainer keep the contracts that their no-hardware doubles keep."""

import re
from pathlib import Path

import pytest

from claasbot.adapter_checksum import expected_checksum
from claasbot.domain.completion import Completion, CompletionRequest, Sampling
from claasbot.domain.conversation import Message
from claasbot.domain.job import JobExperience
from claasbot.inference.launch import LaunchedServer
from claasbot.inference.probe import probe
from claasbot.inference.vllm import VllmServer
from claasbot.ports import InferenceServer, TrainingEngine
from tests.contracts.other_loop import EngineOnOtherLoop
from tests.contracts.test_inference_server import SMOLLM2, InferenceServerContract
from tests.contracts.test_training_engine import TrainingEngineContract

RUNNING = re.compile(r"^vllm:num_requests_running\{.*\} (\S+)$", re.MULTILINE)
QUESTIONS = ("What is the capital of France?", "Name a colour of the rainbow.")


class TestVllm(InferenceServerContract):
    shape = SMOLLM2
    noise_nats = 0.05

    @pytest.fixture
    def server(self, real_server: VllmServer) -> InferenceServer:
        return real_server

    async def n_running(self, server: InferenceServer) -> int:
        assert isinstance(server, VllmServer)
        answer = await server._connection.ask("GET", "/metrics")
        found = RUNNING.search(answer.data)
        assert found is not None
        return round(float(found[1]))

    async def test_a_slot_holds_what_its_folder_says(self, server: InferenceServer, folders: Path) -> None:
        name = await self.load(server, folders, seed=7)
        assert await server.checksum(name) == expected_checksum(folders / name, "bfloat16")

    async def test_logprobs_pass_over_the_prefix_cache(self, server: InferenceServer) -> None:
        """Twice the same long prompt: a cached prefix would leave positions without a logprob."""
        base = (await server.info()).base_model
        prompt = tuple(range(100, 600))
        first = await server.logprobs(base, prompt[:1], prompt[1:])
        again = await server.logprobs(base, prompt[:1], prompt[1:])
        assert len(first) == len(again) == 499
        assert max(abs(a - b) for a, b in zip(first, again, strict=True)) <= 0.3

    async def test_a_window_full_to_the_last_token_can_be_scored(self, server: InferenceServer) -> None:
        info = await server.info()
        prompt = (17,) * info.max_model_len
        assert len(await server.logprobs(info.base_model, prompt[:-1], prompt[-1:])) == 1

    async def test_the_doctor_finds_nothing_missing(
        self, server: InferenceServer, real_server_process: LaunchedServer
    ) -> None:
        plan = real_server_process.plan
        found = await probe(f"http://127.0.0.1:{plan.port}", real_server_process.api_key)
        assert found.lacks(base_model=plan.base_model, max_loras=plan.max_loras) == ()
        assert found.max_loras == plan.max_loras
        assert (found.plugins or {})["cpu_lora"] is True
        refused = await probe(f"http://127.0.0.1:{plan.port}", "another key")
        assert "server.api_key" in (refused.trouble or "")


class TestTrainer(TrainingEngineContract):
    noise_nats = 0.12

    @pytest.fixture
    async def engine(
        self, real_engine: EngineOnOtherLoop, real_server: VllmServer, real_base_revision: str
    ) -> TrainingEngine:
        self.base_revision = real_base_revision
        self.sampled = [await sampled(real_server, question) for question in QUESTIONS]
        return real_engine

    def experience(self, number: int) -> JobExperience:
        question, completion = QUESTIONS[number - 1], self.sampled[number - 1]
        return JobExperience(
            experience_id=number,
            messages=(Message(role="user", content=question),),
            teacher_messages=(Message(role="user", content=f"{question} Answer in one short sentence."),),
            prompt_ids=completion.prompt_ids,
            token_ids=completion.token_ids,
            logprobs=completion.logprobs,
            version_name="base",
        )


async def sampled(server: VllmServer, question: str) -> Completion:
    request = CompletionRequest(
        messages=(Message(role="user", content=question),),
        model=(await server.info()).base_model,
        sampling=Sampling(temperature=0.7, max_tokens=32, seed=1),
    )
    (completion,) = [part async for part in server.complete(request) if isinstance(part, Completion)]
    return completion
