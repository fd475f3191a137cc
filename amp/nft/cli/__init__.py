"""Command line ``amp-nft`` and its input file."""

from amp.nft.cli.main import main

__all__ = ["main"]
