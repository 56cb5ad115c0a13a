"""The equations of the paper: log-ratios of diffusion and token models, the DDO objective and its control.

Tensors in, tensors out; networks, data, options and files belong elsewhere.
"""
