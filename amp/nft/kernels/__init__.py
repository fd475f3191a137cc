"""Compiled numerics on arrays."""
