"""The `claasbot` command: parse, call, print. Imports what a command needs when it is called, and torch never."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from claasbot.errors import BadInput, ClaasbotError
from claasbot.masking import masked

if TYPE_CHECKING:
    from claasbot.services.backing_up import Contents
    from claasbot.settings import Settings

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
        print(masked(f"claasbot: {error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `claasbot settings | head`
        sys.stderr.close()
        return 0
    except Exception as error:
        print(crash_report(error), file=sys.stderr, end="")
        return 1


def crash_report(error: BaseException) -> str:
    """The whole traceback, as it may be pasted into an issue."""
    return masked("".join(traceback.format_exception(error)))


def parser() -> argparse.ArgumentParser:
    """Every command with its help; `docs/commands.md` is made from it."""
    top = argparse.ArgumentParser(prog="claasbot", description="A chat bot that learns from the people it talks to.")
    top.add_argument("--config", type=Path, help="settings file (default: claasbot.toml, where there is one)")
    top.add_argument("--version", action="version", version=_version())
    top.set_defaults(command=None)
    commands = top.add_subparsers(title="commands", metavar="COMMAND")
    _add(commands, "run", _run, "start the bot: server, trainer, dashboard and playground")
    _add(commands, "chat", _chat, "talk to the running bot in the terminal")
    _add_admin_commands(commands)
    pair = _add(commands, "pair", _pair, "list strangers who wrote to the running bot, or let one in by the code")
    pair.add_argument("code", nargs="?", help="the code that the stranger was told; none: list who waits")
    _add_store_commands(commands)
    export = _add(commands, "export", _export, "hand out everything that is stored about one person, as a zip")
    export.add_argument("person", type=_person, help="who, as the dashboard names them: p3")
    export.add_argument("--to", type=Path, help="a file that does not exist yet (default: claasbot-p3.zip here)")
    demo = _add(commands, "demo", _demo, "watch scripted people teach the real stack, beside two control groups")
    demo.add_argument(
        "--seeds", type=_positive, default=1, help="how often to repeat it with other people (default: 1)"
    )
    demo.add_argument("--feedbacks", type=_positive, default=4, help="most feedbacks of one person (default: 4)")
    demo.add_argument("--report", type=Path, default=Path("data/var/demo.html"), help="where the report goes")
    demo.add_argument("--json", action="store_true", help="end with one line of JSON")
    doctor = _add(commands, "doctor", _doctor, "say what is missing and what to do about it")
    doctor.add_argument("--json", action="store_true", help="one line of JSON instead of the table")
    errors = _add(commands, "errors", _errors, "list what broke, or say all about one error")
    errors.add_argument("error_id", nargs="?", default="", help="the number that a person was told; none: the latest")
    audit = _add(commands, "audit", _audit, "list what admins did, and check that nobody changed the list")
    audit.add_argument("--verify", action="store_true", help="check only; exit 1 if a row was changed or is missing")
    audit.add_argument("--seen", default="", help="a head that you kept from the log: it must stand in the chain")
    bench = _add(commands, "bench", _bench, "measure a step, the chat, or one whole lesson")
    bench.add_argument("what", choices=("step", "chat", "lesson"), help="what to measure")
    bench.add_argument("--repeat", type=_positive, default=5, help="repetitions; the median is shown (default: 5)")
    bench.add_argument("--json", action="store_true", help="end with one line of JSON")
    settings = _add(commands, "settings", _settings, "list every setting with its default and its value here")
    settings.add_argument("--markdown", action="store_true", help="as the table of docs/settings.md")
    return top


def _add_store_commands(commands: argparse._SubParsersAction) -> None:  # type: ignore[type-arg]
    backup = _add(commands, "backup", _backup, "copy the database and all versions, also while the bot runs")
    backup.add_argument("to", type=Path, nargs="?", help="a folder that does not exist yet (default: with the others)")
    backup.add_argument("--list", action="store_true", help="list those that are kept, and until when")
    restore = _add(commands, "restore", _restore, "put a backup into a data folder that has no database")
    restore.add_argument("backup", type=Path, nargs="?", help="what `claasbot backup` made (default: the newest kept)")
    restore.add_argument("--aside", action="store_true", help="keep a database that is there under another name")
    store = _add(commands, "store", _store, "make a key for the database, and encrypt or decrypt it; no bot may run")
    store.add_argument("what", choices=("key", "encrypt", "decrypt", "rekey"), help="what to do")
    store.add_argument("--to", type=Path, help="the file for a new key, and for rekey the file that has it")


def _add_admin_commands(commands: argparse._SubParsersAction) -> None:  # type: ignore[type-arg]
    sign_in = _add(commands, "sign-in", _sign_in, "print a new link to the dashboard of the running bot")
    sign_in.add_argument("--name", default="", help="the admin whom it signs in (default: the first owner)")
    admin = _add(commands, "admin", _admin, "list, add, change or remove those who run the bot from the dashboard")
    admin.add_argument("what", choices=("list", "add", "role", "password", "remove"), help="what to do")
    admin.add_argument("name", nargs="?", help="who")
    admin.add_argument("--role", choices=("viewer", "admin", "owner"), default="viewer", help="for add and role")
    key = _add(commands, "key", _key, "list, make or revoke the keys with which programs use the API")
    key.add_argument("what", choices=("list", "add", "revoke"), help="what to do")
    key.add_argument("name", nargs="?", help="what a new key is for, or the number of the one to revoke")
    key.add_argument("--scopes", default="read", help="for add: read, write, metrics, or some with commas between")
    key.add_argument("--days", type=_positive, default=365, help="for add: how long it is good (default: 365)")


def _add(commands: argparse._SubParsersAction, name: str, command: Command, text: str) -> argparse.ArgumentParser:  # type: ignore[type-arg]
    added: argparse.ArgumentParser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    added.set_defaults(command=command)
    return added


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _person(text: str) -> int:
    digits = text.removeprefix("p")
    if not digits.isdecimal() or len(digits) > 17 or int(digits) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is nobody; people are named p1, p2, …")
    return int(digits)


def _version() -> str:
    from claasbot import __version__

    return f"claasbot {__version__}"


def _chosen(arguments: argparse.Namespace) -> Settings:
    from claasbot import settings

    return settings.load(arguments.config)


def _socket(arguments: argparse.Namespace) -> Path:
    """Of the bot on the data folder of the settings, whether it runs or not."""
    from claasbot.data_folder import DataFolder

    return DataFolder(root=_chosen(arguments).data.absolute()).socket


def _run(arguments: argparse.Namespace) -> int:
    from claasbot.hosting import run_until_stopped

    return asyncio.run(run_until_stopped(_chosen(arguments), print))


def _chat(arguments: argparse.Namespace) -> int:
    from claasbot.chat.terminal import chat_in_terminal

    asyncio.run(chat_in_terminal(_socket(arguments)))
    return 0


def _sign_in(arguments: argparse.Namespace) -> int:
    from claasbot.running_bot import ask_for_sign_in_link

    print(asyncio.run(ask_for_sign_in_link(_socket(arguments), arguments.name)))
    return 0


def _admin(arguments: argparse.Namespace) -> int:
    from claasbot.running_bot import change_admin, list_admins

    socket = _socket(arguments)
    if arguments.what == "list":
        print("\n".join(asyncio.run(list_admins(socket))))
        return 0
    if not arguments.name:
        raise BadInput(f"say who: claasbot admin {arguments.what} NAME")
    password = _typed_password(arguments.name) if arguments.what == "password" else ""
    print(asyncio.run(change_admin(socket, arguments.what, arguments.name, role=arguments.role, password=password)))
    return 0


def _typed_password(name: str) -> str:
    """Twice without echo on a terminal; a line where another program types."""
    from getpass import getpass

    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password = getpass(f"New password of {name}: ")
    if getpass("The same again: ") != password:
        raise BadInput("the two passwords differ; nothing was changed")
    return password


def _key(arguments: argparse.Namespace) -> int:
    from claasbot.running_bot import add_key, list_keys, revoke_key

    socket = _socket(arguments)
    if arguments.what == "list":
        print("\n".join(asyncio.run(list_keys(socket))))
        return 0
    if not arguments.name:
        raise BadInput(f"say which: claasbot key {arguments.what} {'NAME' if arguments.what == 'add' else 'NUMBER'}")
    if arguments.what == "revoke":
        asyncio.run(revoke_key(socket, _number(arguments.name)))
        print(f"Key {arguments.name} opens nothing any more.")
        return 0
    print(asyncio.run(add_key(socket, arguments.name, arguments.scopes.split(","), arguments.days)))
    return 0


def _number(text: str) -> int:
    if not text.isdecimal():
        raise BadInput(f"{text!r} is no number of a key; `claasbot key list` shows them")
    return int(text)


def _pair(arguments: argparse.Namespace) -> int:
    from claasbot.running_bot import let_in, strangers

    socket = _socket(arguments)
    print(asyncio.run(let_in(socket, arguments.code)) if arguments.code else "\n".join(asyncio.run(strangers(socket))))
    return 0


def _backup(arguments: argparse.Namespace) -> int:
    from claasbot.store_commands import back_up, backups, new_backup

    chosen = _chosen(arguments)
    if arguments.list:
        found = backups(chosen)
        for line in found:
            until = line.made_at + timedelta(days=chosen.backup.days)
            print(f"{line.folder}  {_versions(line.contents)}, kept until {until:%Y-%m-%d} at most")
        if not found:
            print(f"No backup is kept in {chosen.data / chosen.backup.folder}.")
        return 0
    to = arguments.to or new_backup(chosen)
    contents = asyncio.run(back_up(chosen, to.absolute()))
    print(f"{to}: the database and {_versions(contents)}.")
    return 0


def _versions(contents: Contents) -> str:
    return f"{len(contents.folders)} {'version' if len(contents.folders) == 1 else 'versions'}"


def _restore(arguments: argparse.Namespace) -> int:
    from claasbot.services.burying import ERASED
    from claasbot.store_commands import put_back

    chosen = _chosen(arguments)
    folder = arguments.backup.absolute() if arguments.backup else None
    contents = asyncio.run(put_back(chosen, folder, is_aside=arguments.aside))
    print(f"{chosen.data}: the database of {contents.made_at[:16]} and {_versions(contents)}.")
    print("Every session and API key has ended. Admins, roles and who is blocked are as they were then.")
    if (chosen.data / ERASED).exists():
        print("Whoever was forgotten since then is forgotten again when the bot starts.")
    else:
        print("No list says who was forgotten since then: forget them again.")
    return 0


def _store(arguments: argparse.Namespace) -> int:
    from claasbot.storage import keys
    from claasbot.store_commands import rekey

    if arguments.what == "key":
        if arguments.to is None:
            raise BadInput("say where the new key goes: claasbot store key --to FILE")
        keys.write_new(arguments.to)
        print(f"{arguments.to}: a new key. Set store.key_file to it, then run claasbot store encrypt.")
        return 0
    print(asyncio.run(rekey(_chosen(arguments), arguments.what, arguments.to)))
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from claasbot.store_commands import hand_out

    to = (arguments.to or Path(f"claasbot-p{arguments.person}.zip")).absolute()
    asyncio.run(hand_out(_chosen(arguments), arguments.person, to))
    print(f"{to}: everything about p{arguments.person}. It is theirs: hand it over, and delete it here.")
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from claasbot.measuring import demonstrate

    chosen = _chosen(arguments)
    result = asyncio.run(
        demonstrate(chosen, print, n_seeds=arguments.seeds, n_feedbacks=arguments.feedbacks, report=arguments.report)
    )
    if arguments.json:
        print(json.dumps(result.summary()))
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from claasbot.doctor import report
    from claasbot.hosting import examine

    findings = [finding.masked() for finding in asyncio.run(examine(_chosen(arguments)))]
    if arguments.json:
        print(masked(json.dumps(report(findings))))
    else:
        for finding in findings:
            print(f"{finding.level:8} {finding.name:12} {finding.detail}")
            if finding.todo:
                print(f"{'':21} → {finding.todo}")
    return 1 if any(finding.level == "problem" for finding in findings) else 0


def _errors(arguments: argparse.Namespace) -> int:
    from claasbot.store_commands import failures

    found = asyncio.run(failures(_chosen(arguments), arguments.error_id))
    for row in found:
        person = f"  p{row['person_id']}" if row["person_id"] else ""
        print(f"{row['last_at'][:19]}  {row['error_id']}  {row['n']}×  {row['kind']}  {row['place']}{person}")
        if arguments.error_id:
            print(row["trace"])
    if not found:
        print("Nothing broke.")
    return 0


def _audit(arguments: argparse.Namespace) -> int:
    from claasbot.store_commands import acts

    rows, chain = asyncio.run(acts(_chosen(arguments), arguments.seen))
    for row in [] if arguments.verify else reversed(rows):
        print(f"{row['at'][:19]}  {row['who']}  {row['did']}")
    if chain.trouble:
        print(f"claasbot: the audit was touched: {chain.trouble}", file=sys.stderr)
        return 1
    print(f"{chain.told}. Head: {chain.head}")
    return 0


def _bench(arguments: argparse.Namespace) -> int:
    from claasbot.measuring import bench

    facts = asyncio.run(bench(_chosen(arguments), arguments.what, arguments.repeat, print))
    if arguments.json:
        print(json.dumps(facts))
    return 0


def _settings(arguments: argparse.Namespace) -> int:
    from claasbot import settings

    chosen = _chosen(arguments)
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
