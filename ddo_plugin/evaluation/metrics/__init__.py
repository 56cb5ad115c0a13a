"""Metrics of samples in any feature space: arrays in, numbers out.

Files, options and error messages for users belong in `evaluation`; only the Inception network reads its own weights.
"""
