"""Log-ratios r(x) = log p_θ(x) − log p_ref(x) of the two families of models."""
