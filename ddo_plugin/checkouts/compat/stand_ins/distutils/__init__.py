"""A stand-in for the package that Python 3.12 removed, with the one function that dnnlib imports."""
