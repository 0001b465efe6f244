"""Where everything lies that claasbot writes, and the lock that keeps a second instance off it."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from claasbot.errors import DataFolderInUse

EMBEDDED_MODEL = "SmolLM2-135M-Instruct"


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
        for folder in (self.root, self.adapters, self.jobs, self.logs, self.socket.parent):
            folder.mkdir(parents=True, exist_ok=True)
        for private in (self.root, self.jobs, self.socket.parent):
            private.chmod(0o700)

    def lock(self) -> IO[str]:
        """Hold the folder until the file is closed or the process ends. Raises DataFolderInUse."""
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
