# SPDX-License-Identifier: Apache-2.0
"""One recording: what was captured becomes messages, and messages reach the writer.

Each event goes to the spool on disk first, then through the encoder, to the
writer. A writer that is busy or down loses nothing: messages wait here in order
and are tried again; when many wait, the encoder falls behind, and later reads
from the spool what it has missed. When the spool is full the recording is,
and the pump stops reading, so that nothing passes unrecorded.
"""

from __future__ import annotations

import time

from ttyscribe.errors import SpoolError, WriterError
from ttyscribe.events import INPUT, OUTPUT, WINDOW
from ttyscribe.session import spoolfile as kinds
from ttyscribe.tlog import escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ttyscribe.events import Message
    from ttyscribe.session.echo import EchoFilter
    from ttyscribe.session.spool import Spool
    from ttyscribe.tlog import Encoder
    from ttyscribe.writers import Writer

# Messages that wait in memory, in bytes; more are left to the spool.
QUEUE_LIMIT = 4 << 20
# How long the end of a session waits for a writer that does not take its messages.
GRACE = 3.0
# The same where the user waits for it, who need not: the next recording delivers the rest.
GRACE_OF_USER = 1.0
# The same for one that takes some, and more again: the spool has the rest.
_GRACE_IN_ALL = 60.0
_RETRY = 500_000_000
# journald and syslog take ten messages before they are busy (net.unix.max_dgram_qlen).
_BUSY_RETRY = 500_000
# At the end, in seconds: half of what journald needs for them. To have it wake us for each
# (poll(2)) would cost it more.
_BUSY_PAUSE = 0.0003
# A writer that only time helps, such as a rate limit, is tried less often.
_LIMITED_RETRY = 20_000_000
# So much in the spool is worth a checkpoint, and so much is read back at once.
_CHECKPOINT = 1 << 20
_READ_BACK = 1 << 20


class Recording:
    """Logs the events of one session. Times are nanoseconds since it began.

    latency is in seconds; queue_limit bounds the messages that wait in memory, in
    bytes, and without a spool, or with slow_down, the recording is full beyond it;
    grace is how many seconds the end waits for a writer that takes nothing. echo
    keeps out of the log what shows the recording itself. With look_for a note of the
    recording is left in the spool, for somebody to see whether it arrived.
    """

    def __init__(
        self,
        encoder: Encoder,
        writer: Writer,
        latency: float,
        *,
        log_input: bool,
        log_output: bool,
        log_window: bool,
        queue_limit: int = QUEUE_LIMIT,
        grace: float = GRACE,
        spool: Spool | None = None,
        slow_down: bool = False,
        echo: EchoFilter | None = None,
        look_for: bool = False,
    ) -> None:
        self.bytes_in = 0
        self.bytes_out = 0
        self.log_input = log_input
        self._log_output = log_output
        self._log_window = log_window
        self._encoder = encoder
        self._writer = writer
        self._latency = int(latency * 1e9)
        self._spool = spool
        if spool is not None:
            spool.store = writer.stored_in
        self._slow_down = slow_down or spool is None
        self._echo = echo
        self._look_for = look_for
        # Whether the encoder has events still to read from the spool.
        self._behind = False
        # Whether messages wait of which the spool has nothing.
        self._passed_by = False
        self._error: WriterError | None = None
        self._queue: list[Message] = []
        self._queued = 0
        self._queue_limit = queue_limit
        self._grace = grace
        self._retry_at = 0
        self._began = time.monotonic_ns()

    @property
    def full(self) -> bool:
        """No more can wait: nothing may be captured until the writer takes some."""
        if self._spool is not None and self._spool.full:
            return True
        return self._slow_down and self._queued > self._queue_limit

    @property
    def holds(self) -> bool:
        """Something logged is in memory alone, for want of room: it may not be delivered yet."""
        return self._spool is not None and self._spool.holds

    @property
    def error(self) -> WriterError | None:
        """Why messages wait, or why no more can: the newest reason; None while all is well."""
        if self._spool is not None and self._spool.full:
            why = f"{self._error}; " if self._error is not None else ""
            return WriterError(why + self._spool.error)
        return self._error

    @property
    def paused_until(self) -> int:
        """When more output may be captured, as now counts, if it shows the recording itself."""
        return self._echo.paused_until if self._echo is not None else 0

    @property
    def waiting(self) -> int:
        """How many messages the writer has not taken yet."""
        return len(self._queue)

    def now(self) -> int:
        """Nanoseconds since the recording began."""
        return time.monotonic_ns() - self._began

    def start(self, member: Mapping[str, object], window: bytes | None) -> None:
        """Write the first message.

        Raises WriterError if the writer does not take it, SpoolError if the spool has no room.
        """
        if window is not None and self._log_window:
            self._record(0, kinds.WINDOW, window)
        self._record(0, kinds.NOTE, escape.value(member))
        if self._error is not None:
            if self._spool is not None:
                self._spool.remove()
            raise self._error
        self._require_room()

    def start_in_silence(self, member: Mapping[str, object]) -> None:
        """Write no message before the end, of which member is what recovery can tell.

        Raises SpoolError if the spool has no room.
        """
        self._record(0, kinds.UNTIL, escape.value(member))
        self._require_room()

    def _require_room(self) -> None:
        if self._spool is not None and self._spool.holds:
            self._spool.remove()
            raise SpoolError(self._spool.error)

    def log(self, kind: str, data: bytes) -> None:
        """Record one event that happened now, before it is delivered."""
        if kind == OUTPUT:
            self.bytes_out += len(data)
            if self._log_output:
                if self._echo is not None:
                    data = self._echo.filter(data)
                    if not data:
                        return
                    self._echo.slow_down(data, self.now())
                self._record(self.now(), kinds.OUTPUT, data)
        elif kind == INPUT:
            self.bytes_in += len(data)
            if self.log_input:
                self._record(self.now(), kinds.INPUT, data)
        elif self._log_window:
            self._record(self.now(), kinds.WINDOW, data)

    def note(self, member: Mapping[str, object]) -> None:
        """Record that something was left out on purpose."""
        self._record(self.now(), kinds.NOTE, escape.value(member))

    def tick(self) -> None:
        """Do what is due: end a message whose latency is over, try the writer again."""
        now = self.now()
        since = self._encoder.pending_since
        if self._behind:
            if not self._queue or now >= self._retry_at:
                self._write()
                self._catch_up()
        elif since is not None and now - since >= self._latency:
            self._flush(now)
        elif self._queue and now >= self._retry_at:
            self._write()
        spool = self._spool
        if spool is not None:
            worth = spool.used >= _CHECKPOINT or (spool.full and spool.used)
            if worth and not self._queue and not (self._behind and spool.behind):
                self._flush(now)
            spool.tick(now)

    def due(self) -> int | None:
        """Milliseconds until tick has something to do; None if nothing is due."""
        spool = self._spool
        at = self._encoder.pending_since
        if at is not None:
            # A full spool may have no room for the end of a message; it tells when to try again.
            full = spool is not None and spool.full
            at = None if self._behind or full else at + self._latency
        if self._queue:
            at = self._retry_at if at is None else min(at, self._retry_at)
        elif self._behind and spool is not None and spool.behind:
            return 0
        if spool is not None:
            spool_at = spool.due()
            if spool_at is not None and (at is None or spool_at < at):
                at = spool_at
        if at is None:
            return None
        return max(0, (at - self.now() + 999_999) // 1_000_000)

    def finish(
        self, member: Mapping[str, object], stop: Callable[[], bool] | None = None
    ) -> None:
        """End the recording: everything captured and member reach the writer.

        Raises WriterError if the writer took nothing for the grace, not all in a minute, or
        when stop says so; kept then tells whether the spool has the rest.
        """
        elided = self._echo.take() if self._echo is not None else None
        if elided is not None:
            self._record(self.now(), kinds.NOTE, escape.value(elided))
        totals = {**member, "bytes_in": self.bytes_in, "bytes_out": self.bytes_out}
        self._record(self.now(), kinds.END, escape.value(totals))
        waiting = self._left()
        now = time.monotonic()
        last = now + _GRACE_IN_ALL
        deadline = min(last, now + self._grace)
        while (self._queue or self._behind) and time.monotonic() < deadline:
            if stop is not None and stop():
                break
            self._wait_for_writer()
            self._write()
            self.tick()
            self._pass_spool_by()
            if self._left() != waiting:
                waiting = self._left()
                deadline = min(last, time.monotonic() + self._grace)
        if self._queue or self._behind:
            raise self._unwritten()
        if self._spool is None:
            return
        if not self._spool.may_go(self.now()):
            raise self._unwritten()
        if self._look_for:
            self._spool.leave_note()
        else:
            self._spool.remove()

    def forked(self) -> None:
        """This process is a fork that goes on with the recording."""
        if self._spool is not None:
            self._spool.forked()

    # An event's way: the spool, the encoder, the queue, the writer.

    def _record(self, now: int, kind: int, data: bytes) -> None:
        spool = self._spool
        if spool is not None:
            kept = spool.append(now, kind, data, self.bytes_in, self.bytes_out)
            if self._behind:
                return
            if not kept:
                self._fall_behind()
                return
        messages = encode(self._encoder, now, kind, data)
        if messages:
            self._put(messages)

    def _flush(self, now: int) -> None:
        """End the pending message, and with it the frames in the spool, if the writer takes it."""
        elided = self._echo.take() if self._echo is not None else None
        if elided is not None and self._encoder.pending_since is not None:
            # In a message that is due anyway: one of its own would be echoed itself.
            self._record(now, kinds.NOTE, escape.value(elided))
            return
        if self._encoder.pending_since is None:
            self._checkpoint()
            return
        if self._spool is not None:
            if not self._spool.append(now, kinds.FLUSH, b"", self.bytes_in, self.bytes_out):
                return
            self._spool.read_at = self._spool.tip
        self._put(self._encoder.flush())

    def _fall_behind(self) -> None:
        """Leave events to the spool alone until the writer takes messages again."""
        assert self._spool is not None
        self._behind = True
        self._spool.read_at = self._spool.tip

    def _catch_up(self) -> None:
        """Encode what the spool has and the encoder has missed, a piece of it."""
        spool = self._spool
        if not self._behind or spool is None or self._queued > self._queue_limit // 2:
            return
        for kind, at, data, _, _, _ in spool.read_back(_READ_BACK):
            self._put(encode(self._encoder, at, kind, data), later=True)
        if self._queue:
            self._write()
        self._behind = spool.behind or spool.holds

    def _pass_spool_by(self) -> None:
        """At the end, what the spool has no room for goes straight to the writer."""
        spool = self._spool
        if spool is None or not self._behind or spool.behind or not spool.holds:
            return
        for at, kind, data in spool.take_held():
            self._put(encode(self._encoder, at, kind, data), later=True)
        self._behind = False
        self._passed_by = True

    def _put(self, messages: list[Message], *, later: bool = False) -> None:
        if self._echo is not None:
            self._echo.wrote(messages)
        self._queue.extend(messages)
        self._queued += sum([len(message.data) for message in messages])
        if later:
            return
        if self._error is None or self.now() >= self._retry_at:
            self._write()
        if self._queued > self._queue_limit and self._spool is not None and not self._slow_down:
            self._fall_behind()

    def _write(self) -> None:
        queue = self._queue
        if not queue:
            return
        try:
            taken = self._writer.write(queue)
        except WriterError as error:
            self._error = error
            self._retry_at = self.now() + _RETRY
            return
        self._error = None
        if not taken:
            limited = self._writer.fileno() < 0
            self._retry_at = self.now() + (_LIMITED_RETRY if limited else _BUSY_RETRY)
            return
        self._queued -= sum([len(message.data) for message in queue[:taken]])
        last = queue[taken - 1].id
        del queue[:taken]
        if queue:
            self._retry_at = self.now() + _BUSY_RETRY
        if self._spool is not None and not self._checkpoint():
            self._spool.delivered(last)

    def _checkpoint(self) -> bool:
        """Let the spool begin anew, if the writer has all that it holds; whether that is so."""
        spool = self._spool
        if spool is None or self._queue or self._encoder.pending_since is not None:
            return False
        if self._behind and spool.behind:
            return False
        spool.checkpoint(self._encoder.state(), self.bytes_in, self.bytes_out)
        return True

    def _left(self) -> tuple[int, int]:
        """What finish waits for: messages, and bytes of the spool."""
        missed = self._spool.tip - self._spool.read_at if self._spool and self._behind else 0
        return len(self._queue), missed

    def _unwritten(self) -> WriterError:
        why = self.error or "the writer is busy"
        if self._spool is not None and self._spool.gone:
            return WriterError(
                f"{why}; what waited in {self._spool.path} is lost, because that file was removed"
            )
        if self._spool is not None:
            lost = "what was not shown for want of room is lost; " if self._passed_by else ""
            self._spool.close()
            error = WriterError(
                f"{why}; {lost}the end of the recording waits in {self._spool.path}, and the next "
                "recording or 'ttyscribe recover' writes it"
            )
            error.kept = not lost
            return error
        count = len(self._queue)
        what = "the last message" if count == 1 else f"the last {count} messages"
        return WriterError(f"{why}; {what} of the recording could not be written")

    def _wait_for_writer(self) -> None:
        limited = self._writer.fileno() < 0 or self.error is not None
        time.sleep(0.02 if limited else _BUSY_PAUSE)


def encode(encoder: Encoder, time: int, kind: int, data: bytes) -> list[Message]:
    """What becomes of one frame of the spool; kind is the frame's."""
    if kind == kinds.OUTPUT:
        return encoder.add(time, OUTPUT, data)
    if kind == kinds.INPUT:
        return encoder.add(time, INPUT, data)
    if kind == kinds.WINDOW:
        return encoder.add(time, WINDOW, data)
    if kind == kinds.FLUSH:
        return encoder.flush()
    if kind == kinds.UNTIL:
        return []
    if kind == kinds.NOTE:
        return encoder.note(time, data)
    return encoder.finish(time, data)
