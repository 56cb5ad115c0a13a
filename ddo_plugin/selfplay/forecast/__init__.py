"""What a recipe will cost, before anything is run.

`counting` counts the operations and the memory of a network, `devices` knows GPUs, `forecast` adds up the steps of a
recipe, and `lines` prints the result.
"""
