"""The embedded default: DDO self-play on scikit-learn's digits, end to end on a CPU.

`train.py` plays the upstream: a small native training loop that knows nothing of DDO but two inserted lines.
`plugin.py` is its integration: the shortest worked example of one.
"""
