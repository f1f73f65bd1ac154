"""The command line, `inspo-hub`: one function per command; what a command needs it imports when it runs."""

from __future__ import annotations

from inspo_hub.cli.app import main

__all__ = ["main"]
