"""`python -m claasbot` is the `claasbot` command."""

import sys

from claasbot.cli import main

if __name__ == "__main__":
    sys.exit(main())
