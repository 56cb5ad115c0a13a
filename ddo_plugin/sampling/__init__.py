"""From networks to samples: solvers, the classes of a set, image files and reference sets on disk.

How good the samples are is measured in `evaluation`; how a network is loaded and called is up to an integration.
"""
