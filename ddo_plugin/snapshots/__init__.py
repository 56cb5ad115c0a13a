"""Network snapshots on disk: the sidecars beside them, damaged training states, and loading one as the reference.

What produces snapshots belongs in `finetuning`; what samples them, in `sampling`.
"""
