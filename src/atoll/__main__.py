"""`python -m atoll`: the same as the command `atoll`."""

import sys

from atoll.cli.main import main

sys.exit(main())
