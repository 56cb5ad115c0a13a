"""Insert-only patches: read, placed by content rather than by line number, inserted and removed, all files or none.

Which upstream a checkout is of, and where a patched copy runs, belongs in `checkouts`.
"""
