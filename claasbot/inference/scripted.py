"""An inference server that needs no hardware: answers by rule, with tokens, logprobs and adapters that hang together.

Its tokens are bytes, its logprobs a function of the weights and of what stands before. So a completion that it reports
agrees with what it says later of the same ids, and another version says something else, as with a real model. It raises
what the real one raises, and dies of what the real one dies of. It cannot learn: rules do not change with an adapter.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import struct
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

from claasbot.adapter_files import ADAPTER_CONFIG, WEIGHTS, sha256_of
from claasbot.domain.completion import BASE, Completion, CompletionRequest, FinishReason
from claasbot.domain.conversation import Message
from claasbot.errors import AdapterNotLoaded, AdaptersMix, ServerBroke, ServerDown, ServerRefused
from claasbot.inference.stopping import until
from claasbot.ports import ServerInfo

Rule = Callable[[tuple[Message, ...], str], str | None]
"""The answer to these messages under that model name; None leaves it to the next rule."""

END, _FIRST_BYTE = 2, 3
_ROLE_IDS = {"system": 259, "user": 260, "assistant": 261}
_PIECE_TOKENS = 6
_MOST_NATS = 4.0


def encode(text: str) -> tuple[int, ...]:
    return tuple(byte + _FIRST_BYTE for byte in text.encode())


def decode(ids: tuple[int, ...]) -> str:
    """The inverse of `encode`; ids that are not bytes (roles, end of turn) have no text."""
    known = bytes(i - _FIRST_BYTE for i in ids if _FIRST_BYTE <= i < _FIRST_BYTE + 256)
    return known.decode(errors="replace")


def render(messages: tuple[Message, ...]) -> tuple[int, ...]:
    """The chat template: role, text, end of each message, then the assistant's role."""
    ids: list[int] = []
    for message in messages:
        ids += [_ROLE_IDS[message.role], *encode(message.content), END]
    return (*ids, _ROLE_IDS["assistant"])


def toy_logprobs(weights: str, prompt_ids: tuple[int, ...], token_ids: tuple[int, ...]) -> tuple[float, ...]:
    """Logprobs in nats, between -4 and 0: of `weights` (a SHA-256, or `base`) and all ids up to each.

    The dry-run engine gets this function too, so that what it promises of a version is what is served.
    """
    running = hashlib.blake2b(struct.pack(f"<{len(prompt_ids)}I", *prompt_ids), key=weights.encode()[:64])
    values = []
    for token in token_ids:
        running.update(struct.pack("<I", token))
        values.append(-_MOST_NATS * int.from_bytes(running.copy().digest()[:6], "big") / 2**48)
    return tuple(values)


def echo(messages: tuple[Message, ...], model: str) -> str:
    """The default answer: what was said, and by whom it was answered."""
    return f"{model} heard: {messages[-1].content}"


async def _no_wait() -> None:
    await asyncio.sleep(0)


@dataclass(slots=True, kw_only=True)
class Faults:
    """Switches. All off: a server that works."""

    is_down: bool = False
    breaks_after_tokens: int | None = None
    """Streams break off once that many tokens are out."""
    refuses_load: str | None = None
    """What it says to every load."""
    mixes_adapters: bool = False
    """As vLLM 0.32 on a CPU without our plugin."""
    cannot_forget: bool = False
    """As an attached server without our worker extension."""
    before_token: Callable[[], Awaitable[None]] = _no_wait
    """Awaited before every piece of an answer: hold it to look at a stream that is running."""
    garbles: float = 0.0
    """Nats that the served logprobs of adapters lie beside the true ones: a version that was loaded wrong."""


@dataclass(slots=True, kw_only=True)
class Seen:
    """What was asked of it."""

    requests: list[CompletionRequest] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    unloads: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    n_aborted: int = 0
    n_running: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slot:
    folder: Path
    weights: str


class ScriptedServer:
    """InferenceServer without hardware. `rules` are asked in order, `echo` answers last."""

    def __init__(
        self,
        *rules: Rule,
        base_model: str = "scripted",
        max_model_len: int = 8192,
        max_loras: int = 6,
        max_lora_rank: int = 64,
    ) -> None:
        self.rules = (*rules, echo)
        self.faults = Faults()
        self.seen = Seen()
        self._base_model = base_model
        self._max_model_len = max_model_len
        self._max_loras = max_loras
        self._max_lora_rank = max_lora_rank
        self._generation = 1
        self._slots: dict[str, _Slot] = {}  # what a request may name
        self._worker: dict[str, _Slot] = {}  # what the worker still holds: unloading leaves it there
        self._used: dict[str, Path] = {}

    def restart(self) -> None:
        """As after a crash: up again, and nothing is loaded."""
        self._generation += 1
        self._slots.clear()
        self._worker.clear()
        self.faults.is_down = False

    async def info(self) -> ServerInfo:
        await self._up()
        return ServerInfo(
            base_model=self._base_model,
            max_model_len=self._max_model_len,
            max_loras=self._max_loras,
            base_revision=hashlib.sha256(self._base_model.encode()).hexdigest(),
            template_hash=hashlib.sha256(b"role text end").hexdigest(),
            generation=self._generation,
            forgets_adapters=not self.faults.cannot_forget,
        )

    async def complete(
        self, request: CompletionRequest, stop: asyncio.Event | None = None
    ) -> AsyncGenerator[str | Completion, None]:
        await self._up()
        self.seen.requests.append(request)
        started = time.monotonic()
        prompt_ids = render(request.messages)
        sampled, reason = self._sample(request, prompt_ids)
        logprobs = self._served_logprobs(request.model, prompt_ids, sampled)
        text, n_tokens = "", 0
        async with aclosing(until(stop, self._pieces(sampled))) as pieces:
            async for piece, so_far in pieces:
                text, n_tokens = text + piece, so_far
                if piece:
                    yield piece
        yield Completion(
            text=text,
            prompt_ids=prompt_ids,
            token_ids=sampled[:n_tokens],
            logprobs=logprobs[:n_tokens],
            finish_reason=reason if n_tokens == len(sampled) else "abort",
            model=request.model,
            first_token_s=0.0,
            total_s=time.monotonic() - started,
        )

    async def count_tokens(self, messages: tuple[Message, ...], template_options: dict[str, object]) -> int:
        await self._up()
        return len(render(messages))

    async def logprobs(self, model: str, prompt_ids: tuple[int, ...], token_ids: tuple[int, ...]) -> tuple[float, ...]:
        await self._up()
        if not prompt_ids or not token_ids:
            return ()
        self._fits(len(prompt_ids) + len(token_ids))
        return self._served_logprobs(model, prompt_ids, token_ids)

    async def load(self, name: str, folder: Path) -> None:
        await self._up()
        self.seen.loads.append(name)
        used_for = self._used.setdefault(name, folder)
        if used_for != folder:
            raise ServerRefused(f"{name!r} already stands for {used_for}; load {folder} under a name of its own")
        if self.faults.mixes_adapters:
            raise AdaptersMix(f"{name!r}: adapters would mix; start the server with our plugin")
        if self.faults.refuses_load is not None:
            raise ServerRefused(f"loading {name!r} from {folder}: {self.faults.refuses_load}")
        slot = _Slot(folder=folder, weights=_checked_weights(name, folder, self._max_lora_rank))
        self._slots[name] = self._worker[name] = slot

    async def unload(self, name: str) -> None:
        await self._up()
        self.seen.unloads.append(name)
        self._slots.pop(name, None)

    async def loaded(self) -> frozenset[str]:
        await self._up()
        return frozenset(self._slots)

    async def forget(self, name: str) -> bool:
        await self._up()
        if self.faults.cannot_forget:
            return False
        self.seen.forgotten.append(name)
        self._worker.pop(name, None)
        return True

    async def checksum(self, name: str) -> str | None:
        await self._up()
        if self.faults.cannot_forget or name not in self._worker:
            return None
        return self._worker[name].weights

    async def close(self) -> None:
        self._slots.clear()
        self._worker.clear()

    # --- inside

    async def _up(self) -> None:
        """A folder that the worker still reads is gone: the real engine dies of that, and so does this one."""
        await _no_wait()
        lost = [name for name, slot in self._worker.items() if not slot.folder.is_dir()]
        if lost:
            self.faults.is_down = True
        if self.faults.is_down:
            why = f"; the folder of {lost[0]!r} went before it was forgotten" if lost else ""
            raise ServerDown(f"no answer from the scripted server{why}")

    def _sample(self, request: CompletionRequest, prompt_ids: tuple[int, ...]) -> tuple[tuple[int, ...], FinishReason]:
        self._weights_of(request.model)
        self._fits(len(prompt_ids) + 1)
        answers = (rule(request.messages, request.model) for rule in self.rules)
        text = next(answer for answer in answers if answer is not None)
        ids = (*encode(text), END)
        limit = min(request.sampling.max_tokens, self._max_model_len - len(prompt_ids))
        return (ids, "stop") if len(ids) <= limit else (ids[:limit], "length")

    async def _pieces(self, sampled: tuple[int, ...]) -> AsyncGenerator[tuple[str, int], None]:
        """Text and the number of tokens so far, in pieces that never cut a character in two."""
        waiting: tuple[int, ...] = ()
        self.seen.n_running += 1
        is_whole = False
        try:
            for start in range(0, len(sampled), _PIECE_TOKENS):
                await self.faults.before_token()
                limit = self.faults.breaks_after_tokens
                if limit is not None and start >= limit:
                    raise ServerBroke(f"the stream ended after {start} tokens without a reason; ask again")
                await self._up()
                piece = sampled[start : start + _PIECE_TOKENS]
                waiting += piece
                is_whole = start + len(piece) == len(sampled)
                text = decode(waiting)
                if text.endswith("\ufffd") and not is_whole:
                    text = ""
                else:
                    waiting = ()
                yield text, start + len(piece)
        except (GeneratorExit, asyncio.CancelledError):
            self.seen.n_aborted += not is_whole
            raise
        finally:
            self.seen.n_running -= 1

    def _weights_of(self, model: str) -> str:
        if model == self._base_model:
            return BASE
        if model not in self._slots:
            raise AdapterNotLoaded(f"the server does not serve {model!r}; load it first")
        return self._slots[model].weights

    def _served_logprobs(
        self, model: str, prompt_ids: tuple[int, ...], token_ids: tuple[int, ...]
    ) -> tuple[float, ...]:
        weights = self._weights_of(model)
        garbles = 0.0 if weights == BASE else self.faults.garbles
        return tuple(value - garbles for value in toy_logprobs(weights, prompt_ids, token_ids))

    def _fits(self, n_tokens: int) -> None:
        if n_tokens > self._max_model_len:
            raise ServerRefused(f"{n_tokens} tokens are asked for, the context window has {self._max_model_len}")


def _checked_weights(name: str, folder: Path, max_rank: int) -> str:
    """SHA-256 of the weights; what the real server refuses is refused here: absent, of too high a rank, truncated."""
    what = f"loading {name!r} from {folder}"
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_bytes())
        size = (folder / WEIGHTS).stat().st_size
        with (folder / WEIGHTS).open("rb") as file:
            (header_bytes,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(header_bytes))
    except (OSError, ValueError, struct.error) as error:
        raise ServerRefused(f"{what}: {error}; is it a whole version folder?") from error
    end = max((entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"), default=0)
    if 8 + header_bytes + end != size:
        raise ServerRefused(f"{what}: its weights are truncated")
    if config.get("r", 0) > max_rank:
        raise ServerRefused(f"{what}: rank {config['r']} is above {max_rank}, the most that is served")
    return sha256_of(folder / WEIGHTS)
