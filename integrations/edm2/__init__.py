"""EDM2 (NVlabs/edm2)."""
