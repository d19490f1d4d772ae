"""The command line. `main` is the program `motet`; one file a command, heavy imports inside its body."""

from __future__ import annotations

import errno
import os
import sys

from motet.errors import MotetError, StorageError

INTERRUPTED = 130  # what a shell reports for a program stopped by Ctrl-C


def main() -> None:
    """Run the command in `sys.argv` and exit with its code (see `motet.errors`)."""
    from motet.cli.app import app

    try:
        app()
    except MotetError as error:
        print(f"motet: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # the reader of our results has enough: `motet ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"motet: error: no space left on the device: {error.filename or error}", file=sys.stderr)
        sys.exit(StorageError.exit_code)
