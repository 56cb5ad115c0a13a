"""How good samples are: images and statistics that users pass, one pass over the images, scores and curves.

Numbers are computed in `metrics`; upstream's own scripts are started by the integrations.
"""
