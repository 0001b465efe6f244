"""Writes the pages that are made from the code: `python docs/generate.py`. A test fails when they are stale."""

from __future__ import annotations

import argparse
from pathlib import Path

from claasbot import settings
from claasbot.cli import parser
from claasbot.services.commands import HELP

HERE = Path(__file__).parent
_MADE = "<!-- made by docs/generate.py; change the code instead -->\n\n"


def settings_page() -> str:
    return (
        f"{_MADE}# Settings\n\nIn `claasbot.toml` as sections (`[server]`, `port = 8177`), or in the environment as "
        "`CLAASBOT_SERVER__PORT=8177`, which wins.\nUnknown names are refused. `claasbot settings` shows what is in "
        f"force here.\n\n{settings.as_markdown()}\n"
    )


def commands_page() -> str:
    return (
        f"{_MADE}# Commands\n\n## In the shell\n\n{_shell_commands()}\n\n## In a chat\n\nThe same on every surface.\n\n"
        f"{_chat_commands()}\n"
    )


def _shell_commands() -> str:
    top = parser()
    rows = ["| command | what it does | options |", "| --- | --- | --- |"]
    chosen = next(action for action in top._actions if isinstance(action, argparse._SubParsersAction))
    helps = {choice.dest: choice.help for choice in chosen._choices_actions}
    for name, command in chosen.choices.items():
        options = [f"`{_name(action)}` {action.help}" for action in command._actions if action.dest != "help"]
        rows.append(f"| `claasbot {name}` | {helps[name]} | {'; '.join(options).replace('|', chr(92) + '|')} |")
    return "\n".join(rows)


def _name(action: argparse.Action) -> str:
    """`--json`, `step|chat|lesson`, or what stands for any value: `CODE`."""
    return (
        ", ".join(action.option_strings) or "|".join(action.choices or ()) or str(action.metavar or action.dest.upper())
    )


def _chat_commands() -> str:
    rows = ["| command | what it does |", "| --- | --- |"]
    return "\n".join(rows + [f"| `/{name}` | {text} |" for name, text in HELP.items()])


PAGES = {"settings.md": settings_page, "commands.md": commands_page}


def main() -> None:
    for name, page in PAGES.items():
        (HERE / name).write_text(page())


if __name__ == "__main__":
    main()
