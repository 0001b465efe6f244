"""Writes the pages that are made from the code: `python docs/generate.py`. A test fails when they are stale."""

from __future__ import annotations

import argparse
import tomllib
from collections import Counter
from pathlib import Path

from claasbot import settings
from claasbot.cli import parser
from claasbot.services.commands import HELP
from claasbot.web import metrics, openapi
from claasbot.web.server import ROUTES

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


_API = """\
# The API

The routes behind the dashboard and the terminal, and all that they take and answer. `/api/openapi.json` tells the same
to programs, in OpenAPI 3.1.

- A refusal under `/api/` is `{"error": "one line"}`; elsewhere, and to whoever sent a form, it is a page.
- A change under a session carries the header `X-CSRF-Token` with the page's token (a form: the field `csrf_token`).
- A program shows an API key instead, as `Authorization: Bearer claasbot_…`; it needs no other header.
- More than `web.writes_per_minute` changes by one session or key get 429; `Retry-After` says how many seconds to wait.
- Bodies have at most 256 KiB, and come as they are: one with a `Content-Encoding` is refused.
- Lists show 200 rows; `before` asks for older ones.
"""


def api_page() -> str:
    found = openapi.document(ROUTES)
    return f"{_MADE}{_API}\n{openapi.as_markdown(found)}\n\n## Fields\n\n{openapi.fields_as_markdown(found)}\n"


def operations_page() -> str:
    """Written by hand, but for its table of metrics."""
    start, end = "<!-- metrics: made by docs/generate.py -->", "<!-- end of metrics -->"
    before, _, rest = (HERE / "operations.md").read_text().partition(start)
    return f"{before}{start}\n{metrics.as_markdown()}\n{end}{rest.partition(end)[2]}"


def asvs_page() -> str:
    """The ledger of asvs.toml as a table, in the order of the standard."""
    ledger = tomllib.loads((HERE / "asvs.toml").read_text(encoding="utf-8"))
    states = {
        number: ("not applicable", why) for why, ids in ledger["not_applicable"].items() for number in ids.split()
    }
    states |= {number: ("open", why) for number, why in ledger["open"].items()}
    states |= {number: ("met", _with_evidence(*met)) for number, met in ledger["met"].items()}
    levels = {number: level for level, ids in ledger["levels"].items() for number in ids.split()}
    counts = Counter(state for state, _ in states.values())
    rows = [
        f"| {number} | {level} | {states[number][0]} | {states[number][1]} |"
        for number, level in sorted(levels.items(), key=lambda row: [int(part) for part in row[0].split(".")])
    ]
    return (
        f"{_MADE}# OWASP ASVS 5.0, levels 1 and 2\n\nThe requirements themselves are in the standard, "
        "[OWASP/ASVS](https://github.com/OWASP/ASVS), version 5.0.0. The ledger is our own, not an audit by others.\n\n"
        f"{len(states)} requirements: {counts['met']} met, {counts['not applicable']} not applicable, "
        f"{counts['open']} open.\n\n| number | level | state | how or why |\n| --- | --- | --- | --- |\n"
        + "\n".join(rows)
        + "\n"
    )


def _with_evidence(how: str, *evidence: str) -> str:
    shown = [f"[{one}]({one.removeprefix('docs/')})" if one.startswith("docs/") else f"`{one}`" for one in evidence]
    return f"{how} {', '.join(shown)}"


PAGES = {
    "asvs.md": asvs_page,
    "settings.md": settings_page,
    "commands.md": commands_page,
    "api.md": api_page,
    "operations.md": operations_page,
}


def main() -> None:
    for name, page in PAGES.items():
        (HERE / name).write_text(page())


if __name__ == "__main__":
    main()
