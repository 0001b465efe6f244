"""Known advisories against what the locks pin: `make audit`, before a release. Needs PyPI, like `make lock`.

pip-audit is fetched into a scratch folder, so that its own forty packages are in no lock of ours. Exit 1 for an
advisory, 2 when the question could not be asked: no answer is never a good answer.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PIP_AUDIT = "pip-audit==2.10.1"
LOCKS = ("cpu", "gpu", "dev")
# The CPU build of torch has a local version that no advisory names: it is asked for under its public one.
LOCAL_VERSION = "+cpu"


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="claasbot-audit-") as scratch_name:
        scratch = Path(scratch_name)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if subprocess.run([*pip, "--target", scratch / "tool", PIP_AUDIT], check=False).returncode != 0:
            print(f"{PIP_AUDIT} could not be fetched; connect to PyPI and try again", file=sys.stderr)
            return 2
        return max(_audit(lock, scratch) for lock in LOCKS)


def _audit(lock: str, scratch: Path) -> int:
    pins = scratch / f"{lock}.txt"
    lines = (HERE / f"{lock}.lock").read_text(encoding="utf-8").splitlines()
    names = [line.split()[0].removesuffix(LOCAL_VERSION) for line in lines if "==" in line.split("#")[0]]
    pins.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    print(f"{lock}.lock: {len(names)} packages", flush=True)
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pip_audit",
        "--no-deps",
        "--disable-pip",
        "--strict",
        "--requirement",
        pins,
    ]
    environment = os.environ | {"PYTHONPATH": str(scratch / "tool")}
    outcome = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    print(outcome.stdout, end="")
    if outcome.returncode == 0:
        return 0
    print(outcome.stderr.strip().splitlines()[-1] if outcome.stderr.strip() else "", file=sys.stderr)
    return 1 if outcome.stdout.strip() else 2


if __name__ == "__main__":
    sys.exit(main())
