"""`python -m ddo_plugin`: the command `ddo`, also for torchrun, which starts modules."""

from ddo_plugin.cli import main

main(prog_name="ddo")
