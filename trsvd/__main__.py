"""``python -m trsvd``: the command line."""

import sys

from trsvd.cli import main

if __name__ == "__main__":
    sys.exit(main())
