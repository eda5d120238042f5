# SPDX-License-Identifier: Apache-2.0
"""Calls of the C library that Python has no name for."""

from __future__ import annotations


def call(name: str, *arguments: int | bytes) -> int:
    """The C library's function name; what it returns, which is to be an int, and errno is lost."""
    # The ctypes package takes milliseconds to import; its core does not.
    import _ctypes

    address = _ctypes.dlsym(_ctypes.dlopen(None, 0), name)  # type: ignore[arg-type]
    result: int = _ctypes.call_cdeclfunction(address, arguments)
    return result
