"""The part of numpy.distutils that Amp's setup.py imports."""
