"""S-11: no name from outside becomes a path: in this process by Python's audit events, in another one by strace."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from pathlib import Path
from urllib.parse import quote

from claasbot.data_folder import DataFolder
from claasbot.services.admin_commands import HELP as ADMIN_HELP
from claasbot.services.commands import HELP
from claasbot.web.openapi import path_names
from claasbot.web.server import ROUTES
from tests.faults.conftest import scaled
from tests.fuzz.site import RunningSite, Site
from tests.fuzz.site_process import unlimited_bot
from tests.fuzz.watching import watching
from tests.hostile.names import MARK, names

SEED = 20261120
WITH_NAMES = [(route.method, route.path) for route in ROUTES if path_names(route.path)]
COMMANDS = [*HELP, *ADMIN_HELP]
BUTTONS = ("undo", "reason", "good", "bad", "retry", "forget", "consent", "unlearn", "link", "ask")
_CALLS = "openat,open,creat,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,symlink,symlinkat,link,linkat"
_PATHS = re.compile(r'"((?:[^"\\]|\\.)*)"')
_HARMLESS = ("/dev/", "/proc/", "/sys/")


def attack(site: Site, hostile: list[str]) -> Counter[int]:
    """Each name in one address, one command or button, and one file to back up to. Returns the statuses."""
    visitor = {**site.sign_in(), "Content-Type": "application/json"}
    statuses: Counter[int] = Counter()
    for n, name in enumerate(hostile):
        method, path = WITH_NAMES[n % len(WITH_NAMES)]
        spelled = quote(name, safe="" if n % 3 else "%/")
        address = re.sub(r"\{\w+\}", lambda _, spelled=spelled: spelled, path)
        statuses[site.ask(method, address, "{}" if method == "POST" else None, visitor)[0]] += 1
        for event in events(name if n % 20 == 0 else name[:200], n):  # a long one is answered at length
            status, _, _ = site.ask("POST", "/api/events", json.dumps(event), visitor)
            if status == 401:
                visitor |= site.sign_in()
            statuses[status] += 1
        if not name.startswith("/"):
            refused = json.loads(site.ask_as_owner("POST", "/api/backup", {"to": name}))
            assert "error" in refused, (name, refused)
    return statuses


def events(name: str, n: int) -> list[dict[str, str]]:
    """As an argument, a button, and a key."""
    command = COMMANDS[n % len(COMMANDS)]
    return [
        {"kind": "commanded", "update_key": f"c{n}", "command": command, "argument": name},
        {"kind": "pressed", "update_key": f"p{n}", "action": f"{BUTTONS[n % len(BUTTONS)]}:{name}"[:200]},
        {"kind": "reacted", "update_key": f"r{n}", "message_key": name[:80], "reaction": "👎"},
        {"kind": "said", "update_key": name[:80], "text": f"{name} {n}"},
    ][n % 4 :][:1]


def outside(paths: list[str], root: Path) -> list[str]:
    """Those that lead out of the data folder; relative ones are looked at where the process stands."""
    inside = (str(root.resolve()), *_HARMLESS)
    found = {path: str(Path(path).resolve()) for path in set(paths) if "\x00" not in path}
    return sorted(path for path, real in found.items() if not real.startswith(inside) and "__pycache__" not in real)


async def test_no_hostile_name_is_opened_made_or_moved(tmp_path: Path) -> None:
    hostile = names(scaled(5_000, 150), SEED)
    data = tmp_path / "data"
    async with unlimited_bot(data) as bot:
        site = Site(bot.bot.url, str(DataFolder(root=data).socket))
        with watching() as seen:
            await bot.taught()
            statuses = await asyncio.to_thread(attack, site, hostile)
    print(json.dumps({"seed": SEED, "names": len(hostile), "statuses": statuses, "changed": len(seen.changed)}))
    assert any("adapters" in path for path in seen.changed), "the watcher saw no version being written"
    assert not [status for status in statuses if status >= 500], statuses
    assert [path for path in [*seen.opened, *seen.changed] if MARK in path] == []
    assert outside(seen.changed, data) == []
    assert [path for path in data.rglob("*") if MARK in path.name] == []


def test_the_kernel_sees_no_hostile_name_either(tmp_path: Path) -> None:
    hostile, log = names(scaled(5_000, 60), SEED), tmp_path / "strace.log"
    with RunningSite(
        tmp_path / "data", "strace", "-f", "-qq", "-s", "8192", "-e", f"trace={_CALLS}", "-o", str(log)
    ) as site:
        log.write_text("")  # what it opened to start is another matter
        statuses = attack(site, hostile)
        calls = log.read_text(errors="replace").splitlines()
    changes = [call for call in calls if "openat" not in call or re.search(r"O_(WRONLY|RDWR|CREAT)", call)]
    found = [path.encode().decode("unicode_escape") for call in changes for path in _PATHS.findall(call)]
    print(json.dumps({"seed": SEED, "names": len(hostile), "calls": len(calls), "changed": len(found)}))
    assert not [status for status in statuses if status >= 500], statuses
    assert found, "strace saw no change at all"
    assert [call for call in calls if MARK in call] == []
    assert outside(found, tmp_path / "data") == []
