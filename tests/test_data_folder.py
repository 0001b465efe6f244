"""One bot per data folder."""

import os

import pytest

from claasbot.data_folder import DataFolder
from claasbot.errors import DataFolderInUse


def test_a_second_instance_is_refused_and_told_who_holds_the_folder(tmp_path):
    data = DataFolder(root=tmp_path)
    held = data.lock()
    assert data.is_locked()
    with pytest.raises(DataFolderInUse, match=rf"process {os.getpid()}\).*CLAASBOT_DATA"):
        data.lock()
    held.close()
    assert not data.is_locked()
    data.lock().close()


def test_what_holds_peoples_text_is_private(tmp_path):
    data = DataFolder(root=tmp_path / "var")
    data.lock().close()
    for folder in (data.root, data.jobs, data.socket.parent):
        assert folder.stat().st_mode & 0o077 == 0
