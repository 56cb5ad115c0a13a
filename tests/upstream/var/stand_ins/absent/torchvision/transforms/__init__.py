from enum import Enum


class InterpolationMode(Enum):
    LANCZOS = "lanczos"
