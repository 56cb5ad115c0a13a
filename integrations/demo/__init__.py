"""The demo: DDO self-play on scikit-learn's digits, from training to report, on a CPU.

`train.py` plays the part of an upstream: a small training script that calls DDO in two inserted lines. `plugin.py` is
its integration, and the shortest example of one. Whatever other upstreams need, too, belongs in `ddo_plugin`.
"""
