"""Distances between sets of samples, in any feature space."""
