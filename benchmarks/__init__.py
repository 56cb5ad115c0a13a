"""Benchmarks: each compares several ways of doing one task, side by side in one run.

`make bench` measures the ratios that `bounds.py` bounds. The others are commands, such as
`python -m benchmarks.digits_edm --help`.
"""
