"""Vectors of doubles in LLVM, and linear algebra on them."""
