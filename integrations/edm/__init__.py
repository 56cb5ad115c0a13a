"""EDM (NVlabs/edm)."""
