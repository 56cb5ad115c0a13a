"""The GPU kit: correctness, speed and memory on a GPU machine without network. See docs/gpu.md.

`pack.py` packs the kit, `run.sh` runs all parts on the machine, and `report.py` turns the results into tables.
"""
