"""Deleting a plugin's library: that file, in the plugins folder, and no other."""

import os
import stat
from pathlib import Path

from cpa.errors import CpaError
from cpa.host.discovery import FileStamp, PluginFile


class RemovalRefused(CpaError):
    """The file is not the one that was found, or not below the plugins folder."""

    http_status = 500
    code = "plugin_delete_failed"


def remove_library(root: Path, file: PluginFile) -> bool:
    """Delete *file*, which was found below *root*. Returns: whether it was there. Blocking.

    Folders between the two may be links, as in images and packages; what lies outside of *root* in the end is not
    ours to delete. The last look and the deletion go through the folder's descriptor, so that nobody exchanges it.
    Raises: RemovalRefused, OSError.
    """
    try:
        folder = file.path.parent.resolve(strict=True)
        inside = folder.is_relative_to(root.resolve(strict=True))
    except FileNotFoundError:
        return False
    if not inside:
        raise RemovalRefused(f"{file.path} lies outside of {root}")
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        found = os.stat(file.path.name, dir_fd=descriptor, follow_symlinks=False)
        if not stat.S_ISREG(found.st_mode) or FileStamp.of(found) != file.stamp:
            raise RemovalRefused(f"{file.path} has changed meanwhile, try again")
        os.unlink(file.path.name, dir_fd=descriptor)
    except FileNotFoundError:
        return False
    finally:
        os.close(descriptor)
    return True
