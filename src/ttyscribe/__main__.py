# SPDX-License-Identifier: Apache-2.0
"""`python -m ttyscribe`, or this file itself: the same as the `ttyscribe` command."""

import sys

from ttyscribe.cli import main

sys.exit(main())
