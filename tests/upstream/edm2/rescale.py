"""A snapshot whose weights have other norms, in the same network otherwise: `rescale.py FROM TO`, in the checkout.

Every layer of EDM2 divides by the norm of its weight, so the network's function stays what it was.
"""

import pickle
import sys
from pathlib import Path

import torch

if __name__ == "__main__":
    with Path(sys.argv[1]).open("rb") as file:
        data = pickle.load(file)
    factors = torch.linspace(0.3, 3, 40).tolist()
    with torch.no_grad():
        for number, part in enumerate(data["ema"].modules()):
            if type(part).__name__ == "MPConv":
                part.weight.mul_(factors[number % 40])
    with Path(sys.argv[2]).open("wb") as file:
        pickle.dump(data, file)
