"""Stand-in for the package that python 3.12 removed: only what EDM imports."""
