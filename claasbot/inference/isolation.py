"""Whether a server keeps people's adapters apart (promise 6). Pure: judges what the server reported of itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

CPU_PLUGIN = "claasbot_cpu_lora"

MIXES = (
    "nothing shows that it keeps people's adapters apart (vLLM before 0.33 on a CPU does not), so adapters are not used"
    f" and the base model answers; install claasbot where it runs, for its plugin {CPU_PLUGIN}, and start it with the"
    " flags of docs/attached-server.md, or use vLLM 0.33 or later"
)
_MENDED_IN = (0, 33)
_GPU_WRAPPER = "PunicaWrapperGPU"


def keeps_adapters_apart(report: Mapping[str, Any] | None, version: str | None = None) -> bool:
    """By our plugin, by a vLLM that mended it itself, or by computing on a GPU. What is not known counts as no.

    `report` is what our worker extension says; without it only the `version` can be seen from outside.
    """
    facts: Mapping[str, Any] = {"version": version} if report is None else report
    number = tuple(int(part) for part in re.findall(r"\d+", str(facts.get("version")))[:2])
    wrappers = [str(wrapper) for wrapper in facts.get("wrappers", ())]
    is_on_gpu = bool(wrappers) and all(wrapper.endswith(_GPU_WRAPPER) for wrapper in wrappers)
    return bool(facts.get("cpu_lora")) or number >= _MENDED_IN or is_on_gpu
