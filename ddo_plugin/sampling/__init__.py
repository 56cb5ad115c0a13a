"""Samplers as plain functions, class balance, and randomness that belongs to a sample instead of a batch."""
