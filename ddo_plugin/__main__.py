"""`python -m ddo_plugin`: the command `ddo`."""

from ddo_plugin.cli import main

main(prog_name="ddo")
