"""The few names of torchvision that VAR's training uses; there is no build of the real one for every torch."""
