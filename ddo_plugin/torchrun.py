"""torchrun, but for one thing: a round that collapsed ends with its own status, which torchrun would make 1.

Run as: python -m ddo_plugin.torchrun OPTIONS SCRIPT ARGUMENTS
"""

from __future__ import annotations

import sys

from ddo_plugin.errors import COLLAPSE_STATUS


def main() -> None:
    """What `torchrun` does with this command line."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as run

    try:
        run()
    except ChildFailedError as error:
        if all(failure.exitcode != COLLAPSE_STATUS for failure in error.failures.values()):
            raise
        sys.exit(COLLAPSE_STATUS)


if __name__ == "__main__":
    main()
