"""torchrun, but for how it ends: with the ranks' own status if they said what is wrong, and without its traceback then.

Run as: python -m ddo_plugin.base.torchrun OPTIONS SCRIPT ARGUMENTS
"""

from __future__ import annotations

import logging
import shlex
import sys

from ddo_plugin.base.errors import COLLAPSE_STATUS, UserError, in_one_line

SAID = (COLLAPSE_STATUS, UserError.exit_code)  # whoever ends with one of these has said why


def main() -> None:
    """What `torchrun` does with this command line."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as run

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # its errors are raised besides
    try:
        run()
    except ChildFailedError as error:
        statuses = {failure.exitcode for failure in error.failures.values()}
        for status in SAID:
            if status in statuses:
                sys.exit(status)
        raise
    except SignalException as signalled:
        sys.exit(128 + signalled.sigval)
    except (AssertionError, ValueError) as error:
        reason = " ".join(str(error).split()) or "its options do not go together"
        with in_one_line():
            raise UserError(f"torchrun cannot start `{shlex.join(sys.argv[1:])}`: {reason}") from None


if __name__ == "__main__":
    main()
