"""VAR (FoundationVision/VAR)."""
