"""Neighbours, Gaussian fingerprints and their derivatives."""
