"""Names of upstream's options, and what it needs; light to import."""

from __future__ import annotations

from ddo_plugin import UserError

NAMED = {  # upstream's names of layouts (pixels of a side) -> tokens a side of each scale
    "256": "1_2_3_4_5_6_8_10_13_16",
    "512": "1_2_3_4_6_9_13_18_24_32",
    "1024": "1_2_3_4_5_7_9_12_16_21_27_36_48_64",
}


def parse_layout(layout: str) -> tuple[int, ...]:
    """Return the tokens a side of each scale from upstream's --pn: a name, or sides such as 1_2_3."""
    try:
        return tuple(int(side) for side in NAMED.get(layout, layout).replace("-", "_").split("_"))
    except ValueError:
        raise UserError(f"--pn={layout}: not a list of sides such as 1_2_3, and not 256, 512 or 1024") from None


# The training script imports these packages inside functions, so a run would fail only after minutes.
NEEDS = {"huggingface_hub": "models/var.py", "tensorboard": "utils/misc.py"}
