"""Benchmarks: each compares several ways of doing one task, side by side in one run.

`make bench` runs those that need no checkout. The others are commands: `python -m benchmarks.digits_edm --help`.
"""
