"""Energies, forces and uncertainties of an ensemble."""
