"""Network snapshots: what stands beside them."""
