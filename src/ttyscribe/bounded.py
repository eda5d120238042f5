# SPDX-License-Identifier: Apache-2.0
"""Ask what may hang, as the name service may, for no longer than a given time.

The name service runs other people's modules in our process and asks servers
that may be away. So a forked child asks, writes what it learns to a pipe as it
learns it, and is killed when the time is up: no thread, no alarm, and nothing
of it stays behind. The caller must be single-threaded.

What the child writes is a run of records, each a letter and a text, ended by a
zero byte: + what was learned, ! what failed, and . when all is said.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 5.0  # a first look-up through a slow directory may take one or two

SIGKILL = 9  # the module signal would cost the login path an import of enum


def ask(records: Iterator[str], seconds: float = SECONDS) -> tuple[list[str], str]:
    """Run an iterator in a child: the records that it gave, and what failed, "" for nothing.

    A failure leaves the records that came before it. None of them holds a zero byte.
    """
    try:
        answer, late = _from_child(records, seconds)
    except OSError as error:
        return [], error.strerror or str(error)
    got: list[str] = []
    failure = "it broke off"
    # What follows the last zero byte was cut off.
    for part in answer.split(b"\0")[:-1]:
        text = part[1:].decode("utf-8", "surrogateescape")
        if part[:1] == b"+":
            got.append(text)
        else:
            failure = text
    return got, f"no answer within {seconds:g} s" if late else failure


def _from_child(records: Iterator[str], seconds: float) -> tuple[bytearray, bool]:
    """What the child wrote, and whether its time ran out. Raises OSError: there is no child."""
    from select import POLLIN, poll
    from time import monotonic

    reader, writer = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        os.close(reader)
        os.close(writer)
        raise
    if pid == 0:
        _be_child(records, writer)
    os.close(writer)
    deadline = monotonic() + seconds
    poller = poll()
    poller.register(reader, POLLIN)
    answer = bytearray()
    ended = False
    while not ended and poller.poll(max(0.0, deadline - monotonic()) * 1000):
        chunk = os.read(reader, 65536)
        answer += chunk
        ended = not chunk
    late = not ended
    if late:
        os.kill(pid, SIGKILL)
        # A child that even this does not end at once (a dead disk) is left to init.
        ended = any(event & ~POLLIN for _, event in poller.poll(500))
    os.close(reader)
    if ended:
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            pass  # whoever ignores SIGCHLD has it reaped by the kernel
    return answer, late


def _be_child(records: Iterator[str], writer: int) -> None:
    """Write the records to writer as they come, and end the process."""
    try:
        try:
            for record in records:
                os.write(writer, b"+%b\0" % record.encode("utf-8", "surrogateescape"))
            os.write(writer, b".\0")
        except Exception as error:
            os.write(writer, b"!%b\0" % str(error).encode("utf-8", "surrogateescape"))
    finally:
        os._exit(0)
