"""What libraries read from the environment when they are loaded; whoever starts a process sets it before torch.

Refuses to override: a value that is there already was put there on purpose.
"""

import os

VARIABLES = {
    # A thread that waits for the others of its product sleeps. The default spins, and where the server computes on the
    # same cores it spins in place of the thread that it waits for: a step took 20 s instead of 0.9 s on two cores.
    "OMP_WAIT_POLICY": "passive",
    "HF_HUB_OFFLINE": "1",  # all is on disk: a lookup on the hub could only hang
    "TOKENIZERS_PARALLELISM": "false",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # else products on a GPU differ from run to run
}


def set_environment() -> None:
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
