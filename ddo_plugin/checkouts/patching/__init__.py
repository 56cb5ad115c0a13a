"""Insert-only patches: read, placed by content rather than by line number, put in, taken out, all files or none."""
