"""What EDM and EDM2 share: checks, fakes from images, and evaluation with upstream's scripts."""
