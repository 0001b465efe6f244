"""A bot behind its Unix socket that says what a test wants to hear, and a terminal in front of it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from claasbot.chat.terminal import chat_in_terminal
from claasbot.domain.conversation import Button, ChatEvent, Commanded, Pressed, Reply, Said, Stopped
from claasbot.services.answering import CONSENT_CARD
from claasbot.services.comparing import Compared
from claasbot.services.exporting import Export
from claasbot.services.health import Queues, Status
from claasbot.storage import people
from claasbot.storage.store import Store
from claasbot.web.parts import WebParts
from claasbot.web.playground import Playground
from claasbot.web.server import WebServer


@dataclass(slots=True, kw_only=True)
class Bot:
    """Answers `echo: …` in two pieces, and `hello` with the consent card too; the rest by its script below."""

    console: Playground
    store: Store
    path: Path
    accepted: list[ChatEvent] = field(default_factory=list)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    server: WebServer | None = None
    _n_answers: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def accept(self, event: ChatEvent) -> None:
        self.accepted.append(event)
        if isinstance(event, Stopped):
            self.stopped.set()
            return
        task = asyncio.create_task(self._handle(event))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, event: ChatEvent) -> None:
        await asyncio.sleep(0)
        match event:
            case Said(text="too long"):
                await self._send("The message has too many characters.", problem=True)
            case Said():
                await self._answer(event)
            case Commanded(command="forget"):
                buttons = (Button(label="Delete it all", action="forget:yes"), Button(label="Keep", action="forget:no"))
                await self.console.send(self.console.address, Reply(text="Delete?", notice=True, buttons=buttons))
            case Commanded(command="export"):
                await self._send("Here.", file_name="../claasbot-p1.zip")
            case Commanded() | Pressed():
                await self._send(f"did {event.command if isinstance(event, Commanded) else event.action}")

    async def _answer(self, event: Said) -> None:
        writer = await self.console.open_reply(self.console.address, event.message_key)
        await writer.write("echo: ")
        reason = "stop"
        if event.text == "never ends":
            await self.stopped.wait()
            reason = "abort"
        else:
            await writer.write(event.text)
        self._n_answers += 1
        text = "echo: " if reason == "abort" else f"echo: {event.text}"
        reason = "length" if event.text == "too much" else reason
        data: dict[str, object] = {"finish_reason": reason}
        await writer.finish(Reply(text=text, completion_id=self._n_answers, version_name="p1.v3", data=data))
        if event.text == "hello":
            await self.console.send(self.console.address, CONSENT_CARD)

    async def _send(self, text: str, **data: object) -> None:
        await self.console.send(self.console.address, Reply(text=text, notice=True, data=data))


@pytest.fixture
async def bot(tmp_path: Path) -> AsyncIterator[Bot]:
    store = Store(None)
    await store.open()
    console = Playground("console", "main")
    bot = Bot(console=console, store=store, path=tmp_path / "claasbot.sock")
    bot.server = WebServer(_parts(bot), host="127.0.0.1", port=0, socket_path=bot.path)
    running = asyncio.create_task(console.run(bot.accept))
    await bot.server.start()
    yield bot
    await bot.server.stop()
    running.cancel()
    await store.close()


def _parts(bot: Bot) -> WebParts:
    async def status() -> Status:
        queues = Queues(inbox=0, lessons=0, outbox=0)
        return Status(lights=(), queues=queues, is_learning=True, version="0")

    async def compare(person_id: int, question: str) -> tuple[Compared, Compared]:
        def answer(name: str) -> Compared:
            return Compared(version_name=name, text=f"{question} by {name}", n_tokens=1)

        return answer("base"), answer("p1.v1")

    @contextlib.asynccontextmanager
    async def export(person_id: int) -> AsyncIterator[Export]:
        path = bot.path.with_name("export.zip")
        path.write_bytes(b"PK everything")
        yield Export(path=path, name="claasbot-p1.zip")

    async def nothing(*_: object) -> str:
        return ""

    return WebParts(
        store=bot.store,
        clock=lambda: datetime.now(UTC),
        playground=Playground("playground", "main"),
        console=bot.console,
        status=status,
        compare=compare,
        export=export,
        undo=nothing,
        roll_back=nothing,
        revoke=nothing,  # type: ignore[arg-type]
        set_paused=nothing,  # type: ignore[arg-type]
        train_now=nothing,  # type: ignore[arg-type]
        let_in=nothing,  # type: ignore[arg-type]
        requeue=nothing,  # type: ignore[arg-type]
        backup=nothing,  # type: ignore[arg-type]
        session_hours=1,
    )


class Terminal:
    """`claasbot chat` with a pipe for a keyboard, or a pseudo-terminal."""

    def __init__(self, path: Path, *, is_tty: bool = False) -> None:
        self.screen = io.StringIO()
        self._theirs, self._ours = os.openpty() if is_tty else os.pipe()
        if is_tty:
            self._theirs, self._ours = self._ours, self._theirs
        self.task = asyncio.create_task(chat_in_terminal(path, input_fd=self._theirs, out=self.screen))

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def hang_up(self) -> None:
        os.close(self._ours)
        self._ours = -1

    async def see(self, text: str) -> None:
        async with asyncio.timeout(5):
            while text not in self.screen.getvalue():
                assert not self.task.done(), self.screen.getvalue()
                await asyncio.sleep(0.002)

    async def end(self) -> str:
        await asyncio.wait_for(self.task, 5)
        return self.screen.getvalue()

    def close(self) -> None:
        self.task.cancel()
        for fd in (self._theirs, self._ours):
            with contextlib.suppress(OSError):
                os.close(fd)


@pytest.fixture
async def terminal(bot: Bot) -> AsyncIterator[Terminal]:
    found = Terminal(bot.path)
    yield found
    found.close()


@pytest.fixture
async def tty(bot: Bot) -> AsyncIterator[Terminal]:
    found = Terminal(bot.path, is_tty=True)
    yield found
    found.close()


async def person_at_the_terminal(bot: Bot) -> None:
    """Somebody is known under the account of whoever runs the tests."""
    import getpass

    now = datetime.now(UTC)
    await bot.store.run(people.person_of, "console", f"local:{getpass.getuser()}", "me", now)
