"""`python -m opentrn` is the `trn` command."""

import sys

from opentrn.cli import main

sys.exit(main())
