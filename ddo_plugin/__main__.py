"""`python -m ddo_plugin` is `ddo`: for torchrun, which starts modules."""

from ddo_plugin.cli import main

main(prog_name="ddo")
