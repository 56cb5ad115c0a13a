"""Reads network pickles from untrusted sources without running the code in them.

Options, sidecars and whatever a network is used for belong in `snapshots`.
"""
