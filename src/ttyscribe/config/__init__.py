# SPDX-License-Identifier: Apache-2.0
"""What an admin writes: models, layers, where each value came from, errors with line and column.

    loaded = load("rec-session", environ=os.environ, name=sys.argv[0], user=os.getuid())
    loaded.values["log"]["input"]     # plain nested values, typed by views.py
    loaded.origin("log.input")        # "/etc/ttyscribe/rec-session.conf:12:9"
    loaded.warnings                   # lines for the log

load() costs a login about a millisecond: it imports neither pydantic nor json, and
only a configuration that is wrong, or a question for an origin, brings in more. It
raises ConfigError, or UsageError where the command line is wrong. When it does,
built_in("rec-session") has the values that say what happens then (on_failure).

For the command line: models.py has every setting, describe.settings() lists them
with help and default, dump() is what --configuration prints.
"""

from ttyscribe.config.loader import FOLDER, PROGRAMS, Loaded, built_in, default_file, dump, load
from ttyscribe.errors import ConfigError

__all__ = [
    "load",
    "Loaded",
    "ConfigError",
    "built_in",
    "default_file",
    "dump",
    "FOLDER",
    "PROGRAMS",
]
