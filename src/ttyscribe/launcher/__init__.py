# SPDX-License-Identifier: Apache-2.0
"""From passwd to Python: the native launcher of the login shell and the script it runs.

rec-session.c becomes the executable `ttyscribe-rec-session` (see
packaging/compile-launcher); main.py is what it runs, and hands over to
`ttyscribe.cli.rec_session.launched`. Where the recorder service answers, the
executable is its client (service.h; leader.h where the shell is to be a job) and starts
no Python. wait.c becomes
`ttyscribe-wait`, which waits in the Python client's place, and confine.c
`ttyscribe-confine`, which keeps a skipped program to what it needs.
"""
