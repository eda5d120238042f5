# SPDX-License-Identifier: Apache-2.0
"""The tlog message format: encode, decode, timing, schema.json.

This room is the only one that knows the format. Encoder turns events into
messages, parse and Decoder turn messages back into the same events:
`Decoder().decode(parse(data, where))`. The encoder is on the login path and
stays light; the decoder is imported on first use.
"""

from __future__ import annotations

from ttyscribe.tlog.encode import Encoder, Identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ttyscribe.tlog.decode import Decoder, ParsedMessage, parse

__all__ = ["Decoder", "Encoder", "Identity", "ParsedMessage", "parse"]


def __getattr__(name: str) -> object:
    if name in ("Decoder", "ParsedMessage", "parse"):
        from ttyscribe.tlog import decode

        value: object = getattr(decode, name)
        globals()[name] = value
        return value
    raise AttributeError(name)
