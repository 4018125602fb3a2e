"""`python -m cpa` is the same program as `cpa`."""

import sys

from cpa.cli import main

sys.exit(main())
