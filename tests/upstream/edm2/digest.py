"""What a training state holds, as JSON that can be compared: `digest.py STATE`, in the checkout."""

import hashlib
import json
import sys

import torch


def walk(value: object, name: str, found: dict[str, str]) -> dict[str, str]:
    """The tensors' digests and everything else's text, by where they stand; without times."""
    if isinstance(value, torch.Tensor):
        found[name] = hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()
    elif isinstance(value, dict):
        for key, item in value.items():
            walk(item, f"{name}/{key}", found)
    elif isinstance(value, list | tuple):
        for key, item in enumerate(value):
            walk(item, f"{name}/{key}", found)
    elif "time" not in name:
        found[name] = repr(value)
    return found


if __name__ == "__main__":
    print(json.dumps(walk(torch.load(sys.argv[1], weights_only=False), "", {})))
