"""What was trained, brought to the Hub: frozen, queued, pushed, verified, and finished later where it must be.

Importing it imports neither torch nor the Hub's client.
"""

from __future__ import annotations

from inspo_hub.publish.finish import SPOOL_FOLDER, destination_of, publish_output, spool_of
from inspo_hub.publish.publisher import Publisher
from inspo_hub.publish.result import Missing, Published, PublishResult
from inspo_hub.publish.settings import PublishSettings, Strategy, repositories, repository_of

__all__ = [
    "SPOOL_FOLDER",
    "Missing",
    "PublishResult",
    "PublishSettings",
    "Published",
    "Publisher",
    "Strategy",
    "destination_of",
    "publish_output",
    "repositories",
    "repository_of",
    "spool_of",
]
