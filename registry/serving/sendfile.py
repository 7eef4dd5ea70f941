"""Sending a part of an open file over an asyncio transport, without a thread per reader.

Plain TCP uses sendfile(2) from the event loop's writer callback; a transport that changes the bytes (TLS) gets them
in large reads. Either way a slow reader costs a few hundred bytes of state, and no step keeps the loop for long.
"""

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable

SENDFILE_LIMIT = 1 << 21
"""Bytes given to one sendfile call, so that no transfer keeps the event loop from the others."""
COPY_PIECE = 1 << 18
"""Bytes read at a time where the kernel cannot send the file itself."""


class Transfer:
    """`count` bytes of the open `file`, from `offset`, on their way to one connection.

    The descriptor stays the caller's. Both ways of sending raise ConnectionError when the peer is gone or `stop` was
    called, and OSError when the file cannot be read or ends too early; after either, and after a cancellation, an
    unknown part of the bytes has left, so that the connection is of no further use.
    """

    __slots__ = ("_count", "_done", "_error", "_file", "_offset", "_transport")

    def __init__(self, transport: asyncio.Transport, file: int, offset: int, count: int) -> None:
        self._transport, self._file, self._offset, self._count = transport, file, offset, count
        self._done = asyncio.get_running_loop().create_future()
        self._error: OSError | None = None

    def stop(self) -> None:
        """End the transfer, because the connection was lost."""
        self._settle(ConnectionResetError(errno.ECONNRESET, "the peer is gone"))

    async def by_sendfile(self, drain: Callable[[], Awaitable[None]]) -> None:
        """Send with sendfile(2); `drain` waits while the transport has its protocol's writing paused."""
        await self._flush(drain)
        loop = asyncio.get_running_loop()
        # The event loops refuse to watch a socket that belongs to a transport, but not a duplicate of it.
        socket = os.dup(self._transport.get_extra_info("socket").fileno())
        try:
            loop.add_writer(socket, self._advance, socket)
            await self._done
        finally:
            loop.remove_writer(socket)
            os.close(socket)
        self._raise_error()

    async def by_copy(self, drain: Callable[[], Awaitable[None]]) -> None:
        """Send by reading pieces of `COPY_PIECE` bytes into the transport, as fast as it takes them."""
        while self._count and not self._done.done():
            # Abandoned by a cancellation, a pread leaves no trace: it moves no file position.
            piece = await asyncio.to_thread(os.pread, self._file, min(self._count, COPY_PIECE), self._offset)
            if self._transport.is_closing():
                self.stop()
            elif self._sent(len(piece)):
                self._transport.write(piece)
                await drain()
        self._raise_error()

    async def _flush(self, drain: Callable[[], Awaitable[None]]) -> None:
        """Wait until the kernel has all that was written before, or the file's bytes would overtake it."""
        if self._transport.get_write_buffer_size():
            self._transport.set_write_buffer_limits(high=0)
            await drain()
            if not self._transport.is_closing():
                self._transport.set_write_buffer_limits()
        if self._transport.is_closing():
            self.stop()
        self._raise_error()

    def _advance(self, socket: int) -> None:
        try:
            sent = os.sendfile(socket, self._file, self._offset, min(self._count, SENDFILE_LIMIT))
        except BlockingIOError:
            return
        except OSError as error:
            self._settle(error)
        else:
            self._sent(sent)

    def _sent(self, size: int) -> bool:
        self._offset += size
        self._count -= size
        if not size:
            self._settle(OSError(errno.EIO, f"the file ends {self._count} bytes early"))
        elif not self._count:
            self._settle(None)
        return bool(size)

    def _settle(self, error: OSError | None) -> None:
        if not self._done.done():
            self._error = error
            self._done.set_result(None)

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error
