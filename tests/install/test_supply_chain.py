"""S-23: what an installation is made of can be listed and asked about."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from packaging.utils import canonicalize_name

from tests.install.test_locks import ROOT, pins


def test_the_bill_of_materials_names_every_pinned_package_with_its_hashes(tmp_path: Path) -> None:
    out = tmp_path / "sbom.json"
    command = [Path(sys.executable).with_name("cyclonedx-py"), "requirements", ROOT / "requirements" / "cpu.lock"]
    subprocess.run([*command, "--output-reproducible", "-o", out], check=True, capture_output=True)
    parts = json.loads(out.read_text())["components"]
    assert {canonicalize_name(part["name"]): part["version"] for part in parts} == pins("cpu")
    assert all(reference["hashes"] for part in parts for reference in part["externalReferences"])


def test_an_audit_that_could_not_ask_is_no_good_answer(tmp_path: Path) -> None:
    """Without an index, pip-audit cannot even be fetched."""
    nowhere = {
        "PATH": "",
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_RETRIES": "0",
        "PIP_CONFIG_FILE": "/dev/null",
    }
    done = subprocess.run(
        [sys.executable, ROOT / "requirements" / "audit.py"], env=nowhere, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "could not be fetched" in done.stderr
