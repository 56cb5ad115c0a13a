"""torchrun with another ending: if a rank has reported its error, its exit status is kept and no traceback follows.

Run as: python -m ddo_plugin.base.torchrun OPTIONS SCRIPT ARGUMENTS
"""

from __future__ import annotations

import logging
import shlex
import sys

from ddo_plugin.base.errors import COLLAPSE_STATUS, UserError, in_one_line

REPORTED = (COLLAPSE_STATUS, UserError.exit_code)  # a rank that ends with one of these has reported why


def main() -> None:
    """Run torchrun with the arguments of this process."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as run

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # it also raises what it logs
    try:
        run()
    except ChildFailedError as error:
        statuses = {failure.exitcode for failure in error.failures.values()}
        for status in REPORTED:
            if status in statuses:
                sys.exit(status)
        raise
    except SignalException as signalled:
        sys.exit(128 + signalled.sigval)
    except (AssertionError, ValueError) as error:
        reason = " ".join(str(error).split()) or "its options contradict each other"
        with in_one_line():
            raise UserError(f"torchrun cannot start `{shlex.join(sys.argv[1:])}`: {reason}") from None


if __name__ == "__main__":
    main()
