# SPDX-License-Identifier: Apache-2.0
"""The layout of a spool file: its header, its checkpoints and its frames.

    header   its size a multiple of 4 KiB
         0   magic, version, where the frames begin, length and CRC of the JSON at 512
        64   the id of the last message that the writer took
       128   two slots for a checkpoint, used by turns
       512   JSON: the recording's identity, its settings and its writer
    frames   each with its length, generation and CRC, in the order of capture

A checkpoint is a moment in which the writer has taken all that was captured:
the encoder's state, and the generation of the frames that follow it, which begin
at the front again, so that a file stays small and in the page cache. A new
checkpoint goes to the older slot, and frames of another generation than the
newest whole slot's don't count, so there is no instant at which a kill leaves
less than all. Numbers are in the machine's own byte order: a spool never leaves
its host. While its recorder lives, the file is locked (flock(2)).
"""

from __future__ import annotations

import os
from _struct import Struct
from zlib import crc32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ttyscribe.tlog.encode import State

    # Kind, time in nanoseconds, data, bytes of input and output up to here, where the next begins.
    Frame = tuple[int, int, bytes, int, int, int]

MAGIC = b"ttyspool"
# Of this layout, and of how events become messages: recovery has to make the very same again.
VERSION = 2
HEAD = Struct("=8sIIII")
DELIVERED = Struct("=Q")
DELIVERED_AT = 64
# Generation, next id, bytes of input and output, window, cut-off input and output, CRC.
SLOT = Struct("=IQQQ32p8p8pI")
SLOTS_AT = (128, 256)
JSON_AT = 512
PAGE = 4096

# Length, generation, kind, time, bytes of input and output up to here; a CRC and the data follow.
FIXED = Struct("=IIB3xQQQ")
FRAME = FIXED.size + 4

# Kinds of frames; the first three are kinds of events. The last holds what is known of an
# end that is still to come, and becomes no message where that came.
OUTPUT, INPUT, WINDOW, FLUSH, NOTE, END, UNTIL = b"oirfneu"


def pack_slot(generation: int, state: State, bytes_in: int, bytes_out: int) -> bytes:
    """A checkpoint's slot."""
    next_id, window, in_tail, out_tail = state
    slot = SLOT.pack(generation, next_id, bytes_in, bytes_out, window, in_tail, out_tail, 0)
    return slot[:-4] + crc32(slot[:-4]).to_bytes(4, "little")


def frames(fd: int, at: int, generation: int, end: int) -> Iterator[Frame]:
    """The whole frames of a generation from at to end, up to the first that is not whole."""
    while at + FRAME <= end:
        head = os.pread(fd, FRAME, at)
        if len(head) < FRAME:
            return
        length, of, kind, time, bytes_in, bytes_out = FIXED.unpack_from(head)
        if of != generation or length > end - at - FRAME:
            return
        data = os.pread(fd, length, at + FRAME)
        check = crc32(data, crc32(head[: FIXED.size])).to_bytes(4, "little")
        if len(data) < length or check != head[FIXED.size :]:
            return
        at += FRAME + length
        yield kind, time, data, bytes_in, bytes_out, at
