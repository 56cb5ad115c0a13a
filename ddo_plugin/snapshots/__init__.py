"""Network snapshots: reading them without running them, and what stands beside them."""
