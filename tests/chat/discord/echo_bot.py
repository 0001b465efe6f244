"""A bot of its own process: repeats what is said, in pieces, and prints every event. Arguments: API base, gateway."""

from __future__ import annotations

import asyncio
import sys

from claasbot.chat.discord.client import DiscordChat
from claasbot.chat.discord.pace import Pace
from claasbot.domain.conversation import Button, ChatEvent, Commanded, Pressed, Reacted, Reply, Said


async def main(token: str, api_base: str, gateway: str) -> None:
    chat = DiscordChat(
        token,
        commands={"status": "how I am", "ask": "ask me something"},
        api_base=api_base,
        gateway=gateway,
        pace=Pace(preview_s=0.0, retry_s=0.01),
    )
    tasks = set()

    async def accept(event: ChatEvent) -> None:
        tasks.add(asyncio.create_task(handle(event)))

    async def handle(event: ChatEvent) -> None:
        match event:
            case Said():
                writer = await chat.open_reply(event.address, event.message_key)
                for word in f"You said the following words: {event.text}".split(" "):
                    await writer.write(word + " ")
                    await asyncio.sleep(0.01)
                reply = Reply(text=f"You said: {event.text}", buttons=(Button(label="Undo", action="undo:7"),))
                await writer.finish(reply)
            case Reacted():
                await chat.mark(event.address, event.message_key, None if event.removed else "noted")
            case Commanded() | Pressed():
                done = event.command if isinstance(event, Commanded) else event.action
                data: dict[str, object] = {"file_name": "export.json", "file_path": __file__}
                await chat.send(event.address, Reply(text=f"did {done}", notice=True, data=data), event.own_key)

    await chat.run(accept)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
