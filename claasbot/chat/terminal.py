"""`claasbot chat`: the terminal's end of the bot's Unix socket. Shows frames, sends lines; the bot decides.

Works with a person at a keyboard and with a pipe: one line is said, its answer awaited, then the next.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import aiohttp

from claasbot.chat.console import is_unasked
from claasbot.chat.screen import Lines, Screen
from claasbot.data_folder import why_nobody_answers
from claasbot.errors import ChatError
from claasbot.own_command import own_command

_PATIENCE_S = 600.0
_CHUNK_BYTES = 1 << 16
_MARKS = {"noted": "noted", "queued": "learning…", None: "taken back"}
"""The others come with a notice that says more."""
_REMARKS = {"abort": "stopped", "length": "cut at the length limit"}
_LOCAL_HELP = (
    "Type a message, or a command such as /help. /1, /2 press a button.\n"
    "Ctrl-C stops an answer; Ctrl-C or Ctrl-D at the prompt leaves."
)


async def chat_in_terminal(socket_path: Path, *, input_fd: int = 0, out: TextIO | None = None) -> None:
    """Until the input ends or the person leaves. Raises ChatError when no bot runs, or when it stops."""
    shown_on = sys.stdout if out is None else out
    connector = aiohttp.UnixConnector(path=str(socket_path))
    async with aiohttp.ClientSession(
        "http://localhost", connector=connector, timeout=aiohttp.ClientTimeout(total=None)
    ) as session:
        terminal = _Terminal(session, socket_path, Lines(input_fd), Screen(shown_on, is_tty=os.isatty(input_fd)))
        try:
            await terminal.run()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None


@dataclass(slots=True)
class _Awaited:
    """What the line just sent waits for."""

    said_key: str | None
    """Of a message that was said; None for a command or a button."""
    done: asyncio.Event = field(default_factory=asyncio.Event)
    is_stopped: bool = False


class _Terminal:
    def __init__(self, session: aiohttp.ClientSession, socket_path: Path, lines: Lines, screen: Screen) -> None:
        self._session = session
        self._socket_path = socket_path
        self._lines = lines
        self._screen = screen
        self._connected = asyncio.Event()
        self._awaited: _Awaited | None = None
        self._buttons: list[tuple[str, str, str]] = []
        self._written = ""
        """What stands on the screen of the answer that is being written."""

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            listener = group.create_task(self._listen())
            with self._interrupts(group):
                await self._speak()
            listener.cancel()

    @contextmanager
    def _interrupts(self, group: asyncio.TaskGroup) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._interrupted, group)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    def _interrupted(self, group: asyncio.TaskGroup) -> None:
        """Ctrl-C: an answer that is awaited is stopped; at the prompt, or a second time, it leaves."""
        awaited = self._awaited
        if awaited is not None and not awaited.is_stopped:
            awaited.is_stopped = True
            group.create_task(self._post("stopped"))
            return
        self._lines.end()
        if awaited is not None:
            awaited.done.set()

    async def _speak(self) -> None:
        await self._connected.wait()
        if self._screen.is_tty:
            self._screen.line(_LOCAL_HELP)
        self._screen.prompt()
        async for line in self._lines:
            self._screen.at_prompt = False
            if line.strip():
                await self._send(line.strip())
            self._screen.prompt()
        if self._screen.is_tty:
            self._screen.line("")

    async def _send(self, line: str) -> None:
        command, _, argument = line.removeprefix("/").partition(" ")
        if not line.startswith("/"):
            key = secrets.token_hex(8)
            await self._ask("said", key, key, text=line)
        elif command.isdecimal():
            await self._press(int(command))
        elif command == "stop":
            await self._post("stopped")
        else:
            await self._ask("commanded", secrets.token_hex(8), None, command=command, argument=argument.strip())

    async def _press(self, number: int) -> None:
        if not 1 <= number <= len(self._buttons):
            self._screen.line(f"* there is no button {number} now")
            return
        _, action, key = self._buttons[number - 1]
        await self._ask("pressed", secrets.token_hex(8), None, action=action, message_key=key)

    async def _ask(self, kind: str, update_key: str, said_key: str | None, **facts: str) -> None:
        """Send an event and wait for what the bot says to it; `said_key` is what an answer will reply to."""
        self._awaited = awaited = _Awaited(said_key)
        try:
            if await self._post(kind, update_key, **facts):
                async with asyncio.timeout(_PATIENCE_S):
                    await awaited.done.wait()
        except TimeoutError:
            self._screen.line("* no answer came; it appears here when it does")
        finally:
            self._awaited = None

    async def _post(self, kind: str, update_key: str = "", **facts: str) -> bool:
        event = {"kind": kind, "update_key": update_key or secrets.token_hex(8), **facts}
        return await self._request("POST", "/api/events", json=event) is not None

    async def _export(self, file_name: str) -> None:
        try:
            async with self._session.get("/api/export") as response:
                if response.status >= 400:
                    self._screen.line(f"* {(await response.json()).get('error', response.status)}")
                    return
                path, file = await asyncio.to_thread(_new_file, Path.cwd() / Path(file_name).name)
                with file:
                    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                        await asyncio.to_thread(file.write, chunk)
        except (aiohttp.ClientError, ValueError, OSError) as error:
            raise ChatError(f"the export could not be saved ({type(error).__name__}): try /export again") from error
        self._screen.line(f"* saved as {path}")

    async def _request(self, method: str, path: str, **body: Any) -> dict[str, Any] | None:
        """The bot's JSON; None after a refusal, which is shown. Raises ChatError when the bot is gone."""
        try:
            async with self._session.request(method, path, **body) as response:
                found: dict[str, Any] = await response.json()
        except (aiohttp.ClientError, ValueError, OSError) as error:
            raise ChatError(f"the bot does not answer any more; start it with `{own_command('run')}`") from error
        if response.status < 400:
            return found
        self._screen.line(f"* {found.get('error', response.status)}")
        return None

    async def _listen(self) -> None:
        """Frames until cancelled. Raises ChatError when there is no bot, or when it stops."""
        try:
            async with self._session.get("/api/stream") as response:
                if response.status != 200:
                    raise ChatError(f"the bot refused the chat (status {response.status})")
                rest = b""
                async for chunk in response.content.iter_any():
                    *blocks, rest = (rest + chunk).split(b"\n\n")
                    for block in blocks:
                        await self._show_block(block.decode())
        except aiohttp.ClientConnectorError as error:
            raise ChatError(why_nobody_answers(self._socket_path)) from error
        except aiohttp.ClientError as error:
            raise ChatError(f"the connection to the bot broke ({type(error).__name__})") from error
        raise ChatError(f"the bot stopped; start it with `{own_command('run')}`")

    async def _show_block(self, block: str) -> None:
        fields = dict(line.partition(": ")[::2] for line in block.splitlines() if not line.startswith(":"))
        if "event" in fields:
            await self._show(fields["event"], json.loads(fields["data"]))

    async def _show(self, kind: str, data: dict[str, Any]) -> None:
        match kind:
            case "hello":
                self._connected.set()
            case "reply-started":
                self._written = ""
                self._screen.answer_starts()
            case "delta":
                self._written += data["text"]
                self._screen.delta(data["text"])
            case "reply-finished":
                self._show_finished(data)
            case "notice":
                await self._show_notice(data)
            case "mark":
                if data["mark"] in _MARKS:
                    self._screen.line(f"* {_MARKS[data['mark']]}")
            case "reload":
                raise ChatError(f"the terminal was too slow for the bot; start `{own_command('chat')}` again")
        self._settle(kind, data)

    def _show_finished(self, data: dict[str, Any]) -> None:
        remarks = [str(data["version_name"])] if data["version_name"] else []
        if data["fell_back"]:
            remarks.append("your version was not ready")
        if data["finish_reason"] in _REMARKS:
            remarks.append(_REMARKS[data["finish_reason"]])
        if data["text"] != self._written:  # a notice instead, or an answer that was shown again after a restart
            self._screen.delta(data["text"].removeprefix(self._written))
        self._written = ""
        self._screen.answer_ends(", ".join(remarks))

    async def _show_notice(self, data: dict[str, Any]) -> None:
        self._screen.line(f"* {data['text']}")
        if data["buttons"]:
            self._buttons = [(one["label"], one["action"], data["message_key"]) for one in data["buttons"]]
            choices = "   ".join(f"/{n} {label}" for n, (label, _, _) in enumerate(self._buttons, 1))
            self._screen.line(f"  {choices}")
        if data["data"].get("file_name"):
            await self._export(data["data"]["file_name"])

    def _settle(self, kind: str, data: dict[str, Any]) -> None:
        """Whether this frame is what the last line waited for."""
        awaited = self._awaited
        if awaited is None or kind not in ("reply-finished", "notice"):
            return
        if kind == "reply-finished":
            is_answer = not data["notice"] and awaited.said_key in (None, data["reply_to"])
        elif awaited.said_key is not None:
            is_answer = bool(data["data"].get("problem"))
        else:
            is_answer = not is_unasked(data["text"], data["data"])
        if is_answer:
            awaited.done.set()


def _new_file(path: Path) -> tuple[Path, BinaryIO]:
    """Beside what is there, never over it; readable by its owner only."""
    chosen, n = path, 1
    while chosen.exists():
        n += 1
        chosen = path.with_stem(f"{path.stem}-{n}")
    return chosen, os.fdopen(os.open(chosen, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
