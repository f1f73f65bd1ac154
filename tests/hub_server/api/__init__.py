"""The endpoints: `HUB` routes those of the Hub, `CDN` those of the file storage, `CAS` those of Xet."""

from __future__ import annotations

from ..routes import Router

HUB = Router()
CDN = Router()
CAS = Router()

# Importing a module registers its endpoints; `repos` comes last, as the bare path of a repository matches most.
from . import account, jobs, collections, spaces, refs, tree, discussions, upload, download, cas, weights, repos  # noqa: E402, F401, I001
