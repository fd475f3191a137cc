"""``python -m amp.nft COMMAND``: the same program as ``amp-nft COMMAND``."""

import sys

from amp.nft.cli import main

if __name__ == "__main__":
    sys.exit(main())
