"""Solvers of the probability-flow ODE as plain functions: a denoiser, latents and noise levels in, samples out.

Options, networks and files belong elsewhere.
"""
