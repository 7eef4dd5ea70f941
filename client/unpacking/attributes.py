"""Owners, modes, times and extended attributes, set through descriptors, and a count of what is not permitted here."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass

from client.unpacking.headers import Attributes, Kind
from client.wording import counted

_SET_IDS = stat.S_ISUID | stat.S_ISGID
_TYPES = {Kind.CHARACTER_DEVICE: stat.S_IFCHR, Kind.BLOCK_DEVICE: stat.S_IFBLK}
# EINVAL: the user namespace has no such owner.
_NOT_MINE = (errno.EPERM, errno.EINVAL)
# Overlayfs takes these for its own: a layer could hide or redirect what lies below it.
_NOT_CONTENT = (b"trusted.overlay.", b"user.overlay.")
# The user, the file system or the kernel has no such attribute; everything else is an error.
_UNSUPPORTED = (*_NOT_MINE, errno.EACCES, errno.ENOTSUP, errno.ERANGE, errno.E2BIG)


@dataclass(slots=True)
class Omitted:
    """What was left out, since it is not permitted here: how many owners, devices and extended attributes."""

    owners: int = 0
    devices: int = 0
    xattrs: int = 0

    def __str__(self) -> str:
        told = ((self.owners, "owner"), (self.devices, "device"), (self.xattrs, "extended attribute"))
        return ", ".join(counted(number, what) for number, what in told if number)


def set_on(fd: int, attributes: Attributes, omitted: Omitted) -> None:
    """Sets everything on an open file or folder."""
    mine = _permitted(lambda: os.fchown(fd, attributes.uid, attributes.gid), _NOT_MINE)
    # After the owner: whoever gives a file away takes its capabilities from it.
    for name, value in attributes.xattrs:
        _set_xattr(fd, name, value, omitted)
    os.fchmod(fd, _mode(attributes, omitted, mine=mine))
    os.utime(fd, ns=(attributes.mtime, attributes.mtime))


def set_at(folder: int, name: bytes, kind: Kind, attributes: Attributes, omitted: Omitted) -> None:
    """Sets everything on what was just made and must not be opened: a symlink, a device, a FIFO."""
    uid, gid = attributes.uid, attributes.gid
    mine = _permitted(lambda: os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False), _NOT_MINE)
    for key, value in attributes.xattrs:
        # The only way to name it by a descriptor; its last part is not followed.
        _set_xattr(b"/proc/self/fd/%d/%b" % (folder, name), key, value, omitted)
    mode = _mode(attributes, omitted, mine=mine)
    if kind is not Kind.SYMLINK:
        os.chmod(name, mode, dir_fd=folder, follow_symlinks=False)
    os.utime(name, ns=(attributes.mtime, attributes.mtime), dir_fd=folder, follow_symlinks=False)


def make_device(folder: int, name: bytes, kind: Kind, device: tuple[int, int], omitted: Omitted) -> bool:
    """Makes a device; returns whether that is permitted."""
    made = _permitted(lambda: os.mknod(name, _TYPES[kind] | 0o600, os.makedev(*device), dir_fd=folder), _NOT_MINE)
    omitted.devices += not made
    return made


def _mode(attributes: Attributes, omitted: Omitted, *, mine: bool) -> int:
    omitted.owners += not mine
    # Set-id bits of somebody else's file would give away the rights of whoever unpacks it.
    return attributes.mode if mine else attributes.mode & ~_SET_IDS


def _set_xattr(place: int | bytes, name: bytes, value: bytes, omitted: Omitted) -> None:
    if name.startswith(_NOT_CONTENT) or b"\0" in name or sys.platform != "linux":
        omitted.xattrs += 1
        return
    follow = isinstance(place, int)
    omitted.xattrs += not _permitted(lambda: os.setxattr(place, name, value, follow_symlinks=follow), _UNSUPPORTED)


def _permitted(change: Callable[[], None], refusals: tuple[int, ...]) -> bool:
    try:
        change()
    except OSError as error:
        if error.errno not in refusals:
            raise
        return False
    return True
