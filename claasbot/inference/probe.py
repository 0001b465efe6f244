"""What an attached server can do, as data for the doctor. Asks; loads nothing, changes nothing.

One token is sampled, because only an answer shows whether token ids and logprobs come with it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from claasbot.domain.completion import Completion, CompletionRequest, Sampling
from claasbot.domain.conversation import Message
from claasbot.errors import ServerError
from claasbot.inference.connection import Connection, Patience
from claasbot.inference.isolation import MIXES, keeps_adapters_apart
from claasbot.inference.vllm import BaseFacts, VllmServer

_MAX_LORA = re.compile(r'^vllm:lora_requests_info\{[^}]*max_lora="(\d+)"', re.MULTILINE)
_NO_ADAPTER = "claasbot-probe-no-such-adapter"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerProbe:
    """None: the server did not say."""

    trouble: str | None
    """Why nothing else could be asked."""
    version: str | None = None
    base_models: tuple[str, ...] = ()
    max_model_len: int | None = None
    loads_adapters: bool = False
    returns_token_ids: bool = False
    max_loras: int | None = None
    plugins: dict[str, Any] | None = None
    """What our plugins report; None where the adapter control does not answer."""

    def lacks(self, *, base_model: str, max_loras: int) -> tuple[str, ...]:
        """One line for each thing that claasbot needs and does not find, with what to do."""
        if self.trouble is not None:
            return (self.trouble,)
        findings = (
            (base_model not in self.base_models, f"it serves {self.base_models}, not {base_model!r}; set server.model"),
            (not self.loads_adapters, "it loads no adapters; start it with --enable-lora and"
                " VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"),
            (not self.returns_token_ids, "its answers carry no token ids or logprobs; use vLLM 0.26 or later"),
            (self.plugins is None, "it cannot forget adapters, so erasing needs a restart of it; start it with"
                " VLLM_SERVER_DEV_MODE=1 and --worker-extension-cls"
                " claasbot.vllm_plugins.adapter_control.AdapterControl"),
            (not keeps_adapters_apart(self.plugins, self.version), MIXES),
            (self.max_loras is not None and self.max_loras < max_loras,
                f"it has {self.max_loras} adapter slots; set server.max_loras to that, or start it with"
                f" --max-loras {max_loras}"),
        )  # fmt: skip
        return tuple(line for is_lacking, line in findings if is_lacking)


async def probe(url: str, api_key: str | None = None, *, within_s: float = 10.0) -> ServerProbe:
    """Ask the server at `url`. Never raises for what the server does."""
    patience = Patience(connect_s=min(5.0, within_s), call_s=within_s, silence_s=within_s)
    connection = Connection(url=url, socket=None, api_key=api_key, patience=patience)
    try:
        return await _probe(connection, url, api_key, patience)
    except ServerError as error:
        return ServerProbe(trouble=str(error))
    finally:
        await connection.close()


async def _probe(connection: Connection, url: str, api_key: str | None, patience: Patience) -> ServerProbe:
    data = await connection.expect("listing models", "GET", "/v1/models")
    cards = [card for card in data.get("data", []) if card.get("parent") is None]
    if not cards:
        return ServerProbe(trouble=f"{url} serves no model; is this vLLM?")
    base = BaseFacts(name=str(cards[0]["id"]), revision="", template_hash="")
    server = VllmServer(base, url=url, api_key=api_key, patience=patience)
    try:
        returns_token_ids = await _samples_with_ids(server, base.name)
        plugins, version = await server.plugin_report(), await server.version()
    finally:
        await server.close()
    return ServerProbe(
        trouble=None,
        version=version,
        base_models=tuple(str(card["id"]) for card in cards),
        max_model_len=cards[0].get("max_model_len"),
        loads_adapters=await _loads(connection),
        returns_token_ids=returns_token_ids,
        max_loras=await _max_loras(connection),
        plugins=plugins,
    )


async def _samples_with_ids(server: VllmServer, model: str) -> bool:
    request = CompletionRequest(
        messages=(Message(role="user", content="Hi"),), model=model, sampling=Sampling(max_tokens=1)
    )
    try:
        parts = [part async for part in server.complete(request)]
    except ServerError:
        return False
    return bool(parts) and isinstance(parts[-1], Completion) and len(parts[-1].token_ids) > 0


async def _loads(connection: Connection) -> bool:
    """Unloading what is not there: a server with the route names the adapter, one without says Not Found."""
    answer = await connection.ask("POST", "/v1/unload_lora_adapter", {"lora_name": _NO_ADAPTER})
    return _NO_ADAPTER in answer.message


async def _max_loras(connection: Connection) -> int | None:
    answer = await connection.ask("GET", "/metrics")
    found = _MAX_LORA.search(answer.data) if answer.is_ok and isinstance(answer.data, str) else None
    return int(found[1]) if found else None
