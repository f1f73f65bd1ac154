"""Configurations of other preference trainers -> our recipes, with what could not be carried over said key by key."""

from __future__ import annotations

from inspo_hub.migrating.migrate import FORMATS, Migrated, migrate_file

__all__ = ["FORMATS", "Migrated", "migrate_file"]
