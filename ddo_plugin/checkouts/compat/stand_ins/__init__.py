"""Modules that Python no longer has. This folder is put on sys.path where they are missing."""
