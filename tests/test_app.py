"""What is refused before anything that takes long is begun."""

from __future__ import annotations

import socket

import pytest

from claasbot.app import running
from claasbot.errors import ModelMissing, PortInUse, SettingsError
from claasbot.settings import Settings


@pytest.mark.parametrize("name", ["web", "server"])
async def test_a_taken_port_is_noticed_before_the_model_is_prepared(tmp_path, name):
    said: list[str] = []
    with socket.socket() as taken, socket.socket() as free:
        for one in (taken, free):
            one.bind(("127.0.0.1", 0))
        taken.listen()
        ports = {"web": 0, "server": 0, name: taken.getsockname()[1]}
        ports["server"] = ports["server"] or free.getsockname()[1]
        free.close()
        settings = Settings(data=tmp_path, web={"port": ports["web"]}, server={"port": ports["server"]})
        with pytest.raises(PortInUse, match=rf"port {ports[name]} .*is taken.* set {name}\.port"):
            async with running(settings, said.append):
                pytest.fail("it runs")
    assert said == []
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("platform", ["telegram", "discord"])
async def test_a_token_that_is_none_is_refused_as_early(tmp_path, platform):
    said: list[str] = []
    settings = Settings(data=tmp_path, web={"port": 0}, **{platform: {"tokens": ["hunter2"]}})
    with pytest.raises(SettingsError, match=rf"{platform}\.tokens"):
        async with running(settings, said.append):
            pytest.fail("it runs")
    assert said == []


async def test_an_address_that_is_not_ours_is_refused_as_early(tmp_path):
    settings = Settings(data=tmp_path, accelerator="cpu", web={"host": "192.0.2.1"})
    with pytest.raises(SettingsError, match=r"set web\.host and web\.port"):
        async with running(settings, lambda line: None):
            pytest.fail("it runs")


async def test_a_model_that_is_not_there_is_noticed_before_anything_is_written(tmp_path):
    settings = Settings(data=tmp_path / "data", web={"port": 0}, server={"model": "/no/such/model"})
    with pytest.raises(ModelMissing, match="/no/such/model"):
        async with running(settings, lambda line: None):
            pytest.fail("it runs")
    assert not (tmp_path / "data").exists()
