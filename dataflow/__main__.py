"""`python -m dataflow`: see `dataflow.tools.cli`."""

from __future__ import annotations

import sys

from dataflow.tools.cli import main

if __name__ == "__main__":
    sys.exit(main())
