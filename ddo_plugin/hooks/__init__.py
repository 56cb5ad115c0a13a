"""The contract between the package and its plugins: the hooks, the records that travel through them, the manager.

Nothing here does the work of a hook, and nothing here knows an upstream.
"""
