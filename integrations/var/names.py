"""How many tokens a side the scales of a VAR have."""

from __future__ import annotations

from ddo_plugin import UserError

NAMED = {  # upstream's names, by the pixels of a side
    "256": "1_2_3_4_5_6_8_10_13_16",
    "512": "1_2_3_4_6_9_13_18_24_32",
    "1024": "1_2_3_4_5_7_9_12_16_21_27_36_48_64",
}


def parse(layout: str) -> tuple[int, ...]:
    """Upstream's --pn, a name or sides as 1_2_3, as numbers."""
    try:
        return tuple(int(side) for side in NAMED.get(layout, layout).replace("-", "_").split("_"))
    except ValueError:
        raise UserError(f"--pn={layout}: write the sides of the scales as 1_2_3, or 256, 512 or 1024") from None


# The training script imports these inside functions, so that a run would end after minutes.
NEEDS = {"huggingface_hub": "models/var.py", "tensorboard": "utils/misc.py"}
