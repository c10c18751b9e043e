"""Modules that only give public names of the earlier API a home."""
