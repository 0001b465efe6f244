"""`make mutants`: breaks one line of claasbot at a time and demands that a named test notices.

The mutants stand in the `*.toml` beside this file. Each runs in a copy of the checkout. Ends with one JSON line;
exit 1 if a mutant survived, or if a named test fails on the code as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
COPIED = ("claasbot", "templates", "tests", "docs", "requirements", "data/suites")
FILES = ("pyproject.toml", "README.md", "Makefile", "CHANGELOG.md", "claasbot.example.toml")
DEADLINE_S = 600
FAILED = 1
"""What pytest exits with when tests ran and some failed; anything else proves nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    name: str
    file: str
    old: str
    new: str
    caught_by: tuple[str, ...]


def all_mutants() -> list[Mutant]:
    return [
        Mutant(**{**facts, "caught_by": tuple(facts["caught_by"])})
        for path in sorted(HERE.glob("*.toml"))
        for facts in tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]
    ]


def copy_checkout(to: Path) -> None:
    for folder in COPIED:
        shutil.copytree(ROOT / folder, to / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in FILES:
        shutil.copy(ROOT / file, to / file)


def run_tests(checkout: Path, tests: list[str]) -> int:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        return subprocess.run(
            command, cwd=checkout, env=environment, capture_output=True, timeout=DEADLINE_S, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        return FAILED


def outcome_of(mutant: Mutant) -> str:
    """`caught`, `survived`, or `broken` when the tests could not run."""
    with tempfile.TemporaryDirectory(prefix="claasbot-mutant-") as folder:
        checkout = Path(folder)
        copy_checkout(checkout)
        target = checkout / mutant.file
        text = target.read_text(encoding="utf-8")
        if text.count(mutant.old) != 1:
            return "broken"
        target.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        status = run_tests(checkout, list(mutant.caught_by))
    return {0: "survived", FAILED: "caught"}.get(status, "broken")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", default="", help="mutants whose file list or name contains this")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time")
    chosen = parser.parse_args()
    mutants = [mutant for mutant in all_mutants() if chosen.only in f"{mutant.file} {mutant.name}"]
    if not mutants:
        parser.error(f"no mutant's file or name contains {chosen.only!r}")
    tests = sorted({test for mutant in mutants for test in mutant.caught_by})
    if run_tests(ROOT, tests) != 0:
        print("the tests fail on the code as it is: mend them first", file=sys.stderr)
        return 1
    counts = {"mutants": len(mutants), "caught": 0, "survived": 0, "broken": 0}
    with ThreadPoolExecutor(chosen.jobs) as pool:
        for mutant, outcome in zip(mutants, pool.map(outcome_of, mutants), strict=True):
            counts[outcome] += 1
            print(f"{outcome:9} {mutant.file}: {mutant.name}", flush=True)
    print(json.dumps(counts))
    return int(counts["caught"] != len(mutants))


if __name__ == "__main__":
    sys.exit(main())
