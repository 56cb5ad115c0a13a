"""`python -m ddo_plugin.checkouts.compat SCRIPT ARGS…`: run an upstream's script with the fixes that it needs."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from ddo_plugin.base.errors import UserError
from ddo_plugin.checkouts import compat

USAGE = "python -m ddo_plugin.checkouts.compat SCRIPT [ARGUMENTS]"


def main(arguments: list[str]) -> None:
    """Apply the fixes, then run the script as Python would run it."""
    if not arguments or not Path(arguments[0]).is_file():
        problem = f"{arguments[0]}: no such file" if arguments else "no script given"
        raise UserError(f"{problem}; usage: {USAGE}")
    script = Path(arguments[0]).resolve()
    sys.argv = arguments
    sys.path[: 0 if getattr(sys.flags, "safe_path", False) else 1] = [str(script.parent)]
    compat.apply()
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        error.show()
        sys.exit(error.exit_code)
