# SPDX-License-Identifier: Apache-2.0
"""`python -m ttyscribe`, or this file itself: the same as the `ttyscribe` command."""

from ttyscribe.cli import entry

entry()
