"""Repositories of upstreams on the user's disk: which upstream a folder holds, and how its scripts are patched and run.

What happens inside a running training script belongs in `finetuning`; what a single upstream needs, in its integration.
"""
