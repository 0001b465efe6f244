"""The `claasbot` command: parse, call, print. Imports what a command needs when it is called, and torch never."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from claasbot.errors import ClaasbotError

Command = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status. Errors of ours are one line, without a traceback."""
    top = parser()
    arguments = top.parse_args(argv)
    command: Command | None = arguments.command
    if command is None:
        top.print_help()
        return 2
    try:
        return command(arguments)
    except ClaasbotError as error:
        print(f"claasbot: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `claasbot settings | head`
        sys.stderr.close()
        return 0


def parser() -> argparse.ArgumentParser:
    """Every command with its help; `docs/commands.md` is made from it."""
    top = argparse.ArgumentParser(prog="claasbot", description="A chat bot that learns from the people it talks to.")
    top.add_argument("--config", type=Path, help="settings file (default: claasbot.toml, where there is one)")
    top.add_argument("--version", action="version", version=_version())
    top.set_defaults(command=None)
    commands = top.add_subparsers(title="commands", metavar="COMMAND")
    _add(commands, "run", _run, "start the bot: server, trainer, dashboard and playground")
    _add(commands, "chat", _chat, "talk to the running bot in the terminal")
    _add(commands, "sign-in", _sign_in, "print a new link to the dashboard of the running bot")
    pair = _add(commands, "pair", _pair, "list strangers who wrote to the running bot, or let one in by the code")
    pair.add_argument("code", nargs="?", help="the code that the stranger was told; none: list who waits")
    backup = _add(commands, "backup", _backup, "copy the database and all versions, also while the bot runs")
    backup.add_argument("to", type=Path, help="a folder that does not exist yet")
    restore = _add(commands, "restore", _restore, "put a backup into a data folder that has no database")
    restore.add_argument("backup", type=Path, help="the folder that `claasbot backup` made")
    demo = _add(commands, "demo", _demo, "watch scripted people teach the real stack, beside two control groups")
    demo.add_argument(
        "--seeds", type=_positive, default=1, help="how often to repeat it with other people (default: 1)"
    )
    demo.add_argument("--feedbacks", type=_positive, default=4, help="most feedbacks of one person (default: 4)")
    demo.add_argument("--report", type=Path, default=Path("data/var/demo.html"), help="where the report goes")
    demo.add_argument("--json", action="store_true", help="end with one line of JSON")
    doctor = _add(commands, "doctor", _doctor, "say what is missing and what to do about it")
    doctor.add_argument("--json", action="store_true", help="one line of JSON instead of the table")
    bench = _add(commands, "bench", _bench, "measure a step, the chat, or one whole lesson")
    bench.add_argument("what", choices=("step", "chat", "lesson"), help="what to measure")
    bench.add_argument("--repeat", type=_positive, default=5, help="repetitions; the median is shown (default: 5)")
    bench.add_argument("--json", action="store_true", help="end with one line of JSON")
    settings = _add(commands, "settings", _settings, "list every setting with its default and its value here")
    settings.add_argument("--markdown", action="store_true", help="as the table of docs/settings.md")
    return top


def _add(commands: argparse._SubParsersAction, name: str, command: Command, text: str) -> argparse.ArgumentParser:  # type: ignore[type-arg]
    added: argparse.ArgumentParser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    added.set_defaults(command=command)
    return added


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _version() -> str:
    from claasbot import __version__

    return f"claasbot {__version__}"


def _run(arguments: argparse.Namespace) -> int:
    from claasbot import settings
    from claasbot.hosting import run_until_stopped

    return asyncio.run(run_until_stopped(settings.load(arguments.config), print))


def _chat(arguments: argparse.Namespace) -> int:
    from claasbot import settings
    from claasbot.chat.terminal import chat_in_terminal
    from claasbot.data_folder import DataFolder

    data = DataFolder(root=settings.load(arguments.config).data.absolute())
    asyncio.run(chat_in_terminal(data.socket))
    return 0


def _sign_in(arguments: argparse.Namespace) -> int:
    from claasbot import settings
    from claasbot.data_folder import DataFolder
    from claasbot.hosting import ask_for_sign_in_link

    data = DataFolder(root=settings.load(arguments.config).data.absolute())
    print(asyncio.run(ask_for_sign_in_link(data.socket)))
    return 0


def _pair(arguments: argparse.Namespace) -> int:
    from claasbot import settings
    from claasbot.data_folder import DataFolder
    from claasbot.hosting import let_in, strangers

    data = DataFolder(root=settings.load(arguments.config).data.absolute())
    if arguments.code:
        print(asyncio.run(let_in(data.socket, arguments.code)))
        return 0
    for line in asyncio.run(strangers(data.socket)):
        print(line)
    return 0


def _backup(arguments: argparse.Namespace) -> int:
    from claasbot import settings
    from claasbot.hosting import back_up

    contents = asyncio.run(back_up(settings.load(arguments.config), arguments.to.absolute()))
    print(f"{arguments.to}: the database and {len(contents.folders)} versions.")
    return 0


def _restore(arguments: argparse.Namespace) -> int:
    from claasbot import settings
    from claasbot.hosting import put_back

    chosen = settings.load(arguments.config)
    contents = put_back(chosen, arguments.backup)
    print(f"{chosen.data}: the database of {contents.made_at[:16]} and {len(contents.folders)} versions.")
    print("Whoever was forgotten since then is back: forget them again.")
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from claasbot import settings
    from claasbot.measuring import demonstrate

    chosen = settings.load(arguments.config)
    result = asyncio.run(
        demonstrate(chosen, print, n_seeds=arguments.seeds, n_feedbacks=arguments.feedbacks, report=arguments.report)
    )
    if arguments.json:
        print(json.dumps(result.summary()))
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from claasbot import settings
    from claasbot.hosting import examine

    findings = asyncio.run(examine(settings.load(arguments.config)))
    if arguments.json:
        print(json.dumps([{field: getattr(finding, field) for field in finding.__slots__} for finding in findings]))
    else:
        for finding in findings:
            print(f"{finding.level:8} {finding.name:12} {finding.detail}")
            if finding.todo:
                print(f"{'':21} → {finding.todo}")
    return 1 if any(finding.level == "problem" for finding in findings) else 0


def _bench(arguments: argparse.Namespace) -> int:
    from claasbot import settings
    from claasbot.measuring import bench

    facts = asyncio.run(bench(settings.load(arguments.config), arguments.what, arguments.repeat, print))
    if arguments.json:
        print(json.dumps(facts))
    return 0


def _settings(arguments: argparse.Namespace) -> int:
    from claasbot import settings

    chosen = settings.load(arguments.config)
    if arguments.markdown:
        print(settings.as_markdown())
        return 0
    shown_section = ""
    for name, default, text in settings.every_field():
        section, _, field = name.rpartition(".")
        if section != shown_section:
            print(f"\n[{section}]")
            shown_section = section
        value = settings.value_of(chosen, name)
        print(f"{field} = {_toml(value)}  (default{'' if value == default else f' {_toml(default)}'})\n    {text}")
    return 0


def _toml(value: object) -> str:
    """As it is written in the settings file."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(_toml(one) for one in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else json.dumps(str(value), ensure_ascii=False)
