# SPDX-License-Identifier: Apache-2.0
"""Recording one session: the pump, the recording's identity, its start and end.

Direct mode, in which one process is the user's and the recorder, is
`record_session`.
"""

from __future__ import annotations

from ttyscribe.session.direct import record_session
from ttyscribe.session.outcome import Outcome

__all__ = ["Outcome", "record_session"]
