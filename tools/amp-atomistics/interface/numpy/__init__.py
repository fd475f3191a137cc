"""Stands in front of NumPy while Amp's setup.py runs, which imports only numpy.distutils.core."""
