# SPDX-License-Identifier: Apache-2.0
"""ttyscribe records what happens on a terminal and plays it back as evidence."""

__version__ = "0.1.0"
