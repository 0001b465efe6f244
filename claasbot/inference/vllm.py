"""A vLLM server over HTTP, as the port wants it. Knows its paths, its fields and its traps.

Never loads under a name twice and never with `load_inplace`: the prefix cache is keyed by the name, and an in-place
load is read from the disk again at every step. Refuses to start or stop anything (`launch.py`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from claasbot.domain.completion import Completion, CompletionRequest
from claasbot.domain.conversation import Message
from claasbot.errors import AdapterNotLoaded, AdaptersMix, ServerBroke, ServerDown, ServerError, ServerRefused
from claasbot.inference.connection import Answer, Connection, Patience
from claasbot.inference.isolation import MIXES, keeps_adapters_apart
from claasbot.inference.stopping import until
from claasbot.inference.stream import Gathering
from claasbot.ports import ServerInfo

FORGET, CHECKSUM, REPORT = "claasbot_forget_adapter", "claasbot_adapter_checksum", "claasbot_plugin_report"
"""Methods of our worker extension (`vllm_plugins/adapter_control.py`)."""

_FORGET_AGAIN_S = 0.05
_HEALTH_S = 1.0
_TROUBLE_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseFacts:
    """What we know of the base model from its folder, because a server does not tell."""

    name: str
    """The name under which the server serves it."""
    revision: str
    template_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """The adapters folder as we see it, and as an attached server sees it."""

    here: Path
    there: PurePosixPath


class VllmServer:
    """An attached vLLM server; `LaunchedServer` is one that we started."""

    def __init__(
        self,
        base: BaseFacts,
        *,
        url: str = "http://localhost",
        socket: Path | None = None,
        api_key: str | None = None,
        max_loras: int = 6,
        mount: Mount | None = None,
        patience: Patience = Patience(),  # noqa: B008 - frozen
    ) -> None:
        """`socket` is a Unix socket to use instead of the address in `url`."""
        self._base = base
        self._max_loras = max_loras
        self._mount = mount
        self._connection = Connection(url=url, socket=socket, api_key=api_key, patience=patience)
        self._patience = patience
        self._used: dict[str, Path] = {}  # every name that ever stood for a folder
        self._held: set[str] = set()  # those that the server should have now
        self._lost_generations = 0
        self._forgets: tuple[int, bool] | None = None

    async def info(self) -> ServerInfo:
        cards = await self._cards()
        base = cards.get(self._base.name)
        if base is None or base.get("parent") is not None:
            served = sorted(name for name, card in cards.items() if card.get("parent") is None)
            raise ServerRefused(f"the server has no base model {self._base.name!r}, only {served!r}; set server.model")
        generation = self._generation()
        if self._forgets is None or self._forgets[0] != generation:
            self._forgets = (generation, await self.plugin_report() is not None)
        return ServerInfo(
            base_model=self._base.name,
            max_model_len=int(base["max_model_len"]) - 1,  # room to score a full window: `logprobs` samples one more
            max_loras=self._max_loras,
            base_revision=self._base.revision,
            template_hash=self._base.template_hash,
            generation=generation,
            forgets_adapters=self._forgets[1],
        )

    async def complete(
        self, request: CompletionRequest, stop: asyncio.Event | None = None
    ) -> AsyncGenerator[str | Completion, None]:
        started = time.monotonic()
        gathering = Gathering(request.model)
        events = self._connection.stream("/v1/chat/completions", _chat_body(request), _refusal_for(request.model))
        async with aclosing(until(stop, events)) as events_until_stop:
            async for event in events_until_stop:
                if delta := gathering.add(event, time.monotonic() - started):
                    yield delta
        if stop is not None and stop.is_set():
            gathering.break_off()
        yield gathering.completion(time.monotonic() - started)

    async def count_tokens(self, messages: tuple[Message, ...], template_options: dict[str, object]) -> int:
        body = {
            "model": self._base.name,
            "messages": _plain(messages),
            "add_generation_prompt": True,
            "chat_template_kwargs": template_options,
        }
        data = await self._connection.expect("counting tokens", "POST", "/tokenize", body)
        return int(_field(data, "count", "counting tokens"))

    async def logprobs(self, model: str, prompt_ids: tuple[int, ...], token_ids: tuple[int, ...]) -> tuple[float, ...]:
        """Asking for prompt logprobs makes vLLM pass over its prefix cache: these are computed, not remembered."""
        if not token_ids or not prompt_ids:
            return ()
        body = {
            "model": model,
            "prompt": [*prompt_ids, *token_ids],
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": 0,
        }
        answer = await self._connection.ask("POST", "/v1/completions", body, within_s=self._patience.silence_s)
        if not answer.is_ok:
            raise _refusal_for(model)(answer)
        return _given_logprobs(answer.data, token_ids)

    async def load(self, name: str, folder: Path) -> None:
        used_for = self._used.setdefault(name, folder)
        if used_for != folder:
            raise ServerRefused(f"{name!r} already stands for {used_for}; load {folder} under a name of its own")
        await self._refuse_to_mix(repr(name))
        what, path = f"loading {name!r} from {folder}", self._there(folder)
        body = {"lora_name": name, "lora_path": path}
        answer = await self._connection.ask("POST", "/v1/load_lora_adapter", body, within_s=self._patience.load_s)
        if not answer.is_ok and not (answer.status == 400 and await self._root_of(name) == path):
            raise _without_route(answer) or answer.refusal(what)
        self._held.add(name)

    async def unload(self, name: str) -> None:
        answer = await self._connection.ask("POST", "/v1/unload_lora_adapter", {"lora_name": name})
        if not answer.is_ok and (answer.status != 404 or _without_route(answer)):
            raise _without_route(answer) or answer.refusal(f"unloading {name!r}")
        self._held.discard(name)

    async def loaded(self) -> frozenset[str]:
        return frozenset(name for name, card in (await self._cards()).items() if card.get("parent") is not None)

    async def forget(self, name: str) -> bool:
        """An answer that was just cut off may hold the slot for a moment longer: asked again until it lets go."""
        deadline = time.monotonic() + self._patience.forget_s
        while True:
            results = await self._rpc(FORGET, name)
            errors = [
                str(result["error"]) for result in results or () if isinstance(result, dict) and "error" in result
            ]
            if not results or not errors or time.monotonic() >= deadline:
                return bool(results) and not errors
            await asyncio.sleep(_FORGET_AGAIN_S)

    async def checksum(self, name: str) -> str | None:
        digests = [
            result["checksum"]
            for result in await self._rpc(CHECKSUM, name) or ()
            if isinstance(result, dict) and isinstance(result.get("checksum"), str)
        ]
        return digests[0] if len(digests) == 1 else None

    async def plugin_report(self) -> dict[str, Any] | None:
        """What our plugins in the server say of themselves (`cpu_lora`, `version`); None where there are none."""
        results = await self._rpc(REPORT)
        return results[0] if results and isinstance(results[0], dict) else None

    async def version(self) -> str | None:
        """Of vLLM; None where it does not say."""
        answer = await self._connection.ask("GET", "/version")
        return answer.data.get("version") if answer.is_ok and isinstance(answer.data, dict) else None

    async def trouble(self) -> str | None:
        """What is wrong with it now, in one line; None when all is well. A few short requests, 3 s at most."""
        try:
            async with asyncio.timeout(_TROUBLE_S):
                answer = await self._connection.look("GET", "/health", within_s=_HEALTH_S)
                if not answer.is_ok:
                    return str(answer.refusal("health"))
                await self.info()
                await self._refuse_to_mix("adapters")
        except TimeoutError:
            return f"{self._connection.where} was silent for {_TROUBLE_S:g} s; look at its log"
        except ServerError as error:
            return str(error)
        return None

    @property
    def pause(self) -> str | None:
        """Why nothing is asked of it for a moment; None while it answers."""
        return self._connection.breaker.why_open

    async def close(self) -> None:
        await self._connection.close()

    # --- inside

    def _generation(self) -> int:
        """Of an attached server: one more whenever something that we loaded is gone."""
        return 1 + self._lost_generations

    async def _refuse_to_mix(self, what: str) -> None:
        """Asked at every load: an attached server may come back without our plugin, and nobody tells us."""
        report = await self.plugin_report()
        if not keeps_adapters_apart(report, await self.version() if report is None else None):
            raise AdaptersMix(f"{what}: {MIXES}")

    async def _cards(self) -> dict[str, Mapping[str, Any]]:
        """Every model that is served, by name. Notices a restart by what is missing."""
        data = await self._connection.expect("listing models", "GET", "/v1/models")
        cards = {card["id"]: card for card in _field(data, "data", "listing models")}
        if not self._held <= cards.keys():
            self._lost_generations += 1
            self._held.clear()
        return cards

    async def _root_of(self, name: str) -> str | None:
        root = (await self._cards()).get(name, {}).get("root")
        return None if root is None else str(root)

    def _there(self, folder: Path) -> str:
        """The path under which the server sees a version folder."""
        if self._mount is None:
            return str(folder.absolute())
        try:
            return str(self._mount.there / folder.relative_to(self._mount.here))
        except ValueError as error:
            raise ServerRefused(f"{folder} is not in {self._mount.here}, which the server mounts") from error

    async def _rpc(self, method: str, *args: str) -> list[Any] | None:
        """What each worker answers; None where the server has no such method (or no development mode)."""
        body = {"method": method, "args": list(args), "timeout": self._patience.call_s}
        answer = await self._connection.ask("POST", "/collective_rpc", body, within_s=self._patience.call_s + 1.0)
        if answer.is_ok and isinstance(answer.data, dict) and isinstance(answer.data.get("results"), list):
            return list(answer.data["results"])
        error = answer.refusal(method)
        if answer.status not in (404, 405, 500) or isinstance(error, ServerDown):
            raise error
        return None


def _chat_body(request: CompletionRequest) -> dict[str, object]:
    body: dict[str, object] = {
        "model": request.model,
        "messages": _plain(request.messages),
        "chat_template_kwargs": request.template_options,
        "n": 1,
        "stream": True,
        "logprobs": True,
        "top_logprobs": 0,
        "return_token_ids": True,
        "temperature": request.sampling.temperature,
        "top_p": request.sampling.top_p,
        "max_tokens": request.sampling.max_tokens,
    }
    if request.sampling.seed is not None:
        body["seed"] = request.sampling.seed
    return body


def _plain(messages: tuple[Message, ...]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _given_logprobs(data: Any, token_ids: tuple[int, ...]) -> tuple[float, ...]:
    """Of the last positions of the prompt: the logprob of the token that stands there."""
    try:
        rows = data["choices"][0]["prompt_logprobs"][-len(token_ids) :]
        return tuple(float(row[str(token)]["logprob"]) for row, token in zip(rows, token_ids, strict=True))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ServerRefused(f"prompt logprobs have another shape ({error!r}); is this vLLM?") from error


def _refusal_for(model: str) -> Callable[[Answer], Exception]:
    def refusal(answer: Answer) -> Exception:
        if answer.status == 404:
            return AdapterNotLoaded(f"the server does not serve {model!r} ({answer.message}); load it first")
        refused = answer.refusal(f"completing with {model!r}")
        if answer.status >= 500 and not isinstance(refused, ServerDown):
            return ServerBroke(f"{refused}; try again")
        return refused

    return refusal


def _without_route(answer: Answer) -> ServerRefused | None:
    """The error for a server that was started without loading at run time: a 404 that names no adapter."""
    if answer.status == 404 and answer.message.lower() == "not found":
        return ServerRefused(
            "the server cannot load adapters while it runs; start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"
        )
    return None


def _field(data: Mapping[str, Any], name: str, what: str) -> Any:
    if name not in data:
        raise ServerRefused(f"{what}: the answer has no {name!r}; is this vLLM?")
    return data[name]
