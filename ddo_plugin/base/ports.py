"""Ports for processes that want one to meet at, though they are alone."""

from __future__ import annotations

import socket


def free() -> int:
    """A port that nobody on this machine listens at now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
