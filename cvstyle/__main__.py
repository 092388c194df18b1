"""`python -m cvstyle` is the command `cvstyle`."""

import sys

from .cli import main

sys.exit(main())
