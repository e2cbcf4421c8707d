"""Exit codes: a promise to scripts, documented in docs/cli.md."""

from typing import Final

OK: Final = 0
FOUND: Final = 1  # a difference, a problem, nothing there: what was asked for has the answer no
USAGE: Final = 2  # argparse's own
LOCKED: Final = 3
DAMAGED: Final = 4
FAILED: Final = 5
INTERRUPTED: Final = 130  # 128 + SIGINT
PIPE_CLOSED: Final = 141  # 128 + SIGPIPE
