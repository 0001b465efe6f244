"""Where everything lies that claasbot writes, and the lock that keeps a second instance off it."""

from __future__ import annotations

import fcntl
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from claasbot.errors import DataFolderInUse, SettingsError
from claasbot.own_command import own_command

EMBEDDED_MODEL = "SmolLM2-135M-Instruct"


_ROOM_BYTES = 16 * 1024 * 1024


def is_full(folder: Path) -> bool:
    """Whether what fails here may fail for want of space. Libraries hide the reason in errors of their own."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free < _ROOM_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFolder:
    """Paths below `root`; private to the account that runs the bot."""

    root: Path

    @property
    def database(self) -> Path:
        return self.root / "claasbot.db"

    @property
    def adapters(self) -> Path:
        return self.root / "adapters"

    @property
    def jobs(self) -> Path:
        return self.root / "jobs"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def embedded_model(self) -> Path:
        return self.root / "models" / EMBEDDED_MODEL

    @property
    def socket(self) -> Path:
        return self.root / "run" / "claasbot.sock"

    @property
    def lock_file(self) -> Path:
        return self.root / "run" / "claasbot.lock"

    def make(self) -> None:
        """Raises SettingsError for a place where nothing can be written."""
        try:
            for folder in (self.root, self.adapters, self.jobs, self.logs, self.socket.parent):
                folder.mkdir(parents=True, exist_ok=True)
            for private in (self.root, self.jobs, self.socket.parent):
                private.chmod(0o700)
            self.lock_file.touch()
        except OSError as error:
            raise SettingsError(
                f"the data folder {str(self.root)!r} cannot be written ({error.strerror}: {error.filename!r}); "
                "give this account the right to, or set CLAASBOT_DATA to another folder"
            ) from error

    def lock(self) -> IO[str]:
        """Hold the folder until the file is closed or the process ends. Raises DataFolderInUse, SettingsError."""
        self.make()
        file = self.lock_file.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise DataFolderInUse(
                f"another claasbot (process {holder}) uses {self.root}; stop it, or set CLAASBOT_DATA to another folder"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        return file

    def is_locked(self) -> bool:
        """Whether a bot runs on this folder."""
        if not self.lock_file.exists():
            return False
        with self.lock_file.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            fcntl.flock(file, fcntl.LOCK_UN)
            return False


def why_nobody_answers(socket: Path) -> str:
    """For whoever asks the bot over its socket in vain. The lock is held before the socket is there, and after."""
    if DataFolder(root=socket.parent.parent).is_locked():
        return "the claasbot on this data folder is starting or stopping; try again in a moment"
    return f"no claasbot runs on this data folder; start it with `{own_command('run')}`"
