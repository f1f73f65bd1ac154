"""What a Space on the Hub is given beside its files: secrets, whose values cannot be read back."""

from __future__ import annotations

from inspo_hub.hub.client import DEFAULT_PATIENCE, Patience, api, call


def space_secrets(repo_id: str, *, patience: Patience = DEFAULT_PATIENCE) -> set[str]:
    """The names of a Space's secrets. Raises HubFailure."""
    return set(call(lambda: api().get_space_secrets(repo_id), patience=patience))


def set_space_secret(
    repo_id: str, name: str, value: str, *, description: str, patience: Patience = DEFAULT_PATIENCE
) -> None:
    """Gives a Space a secret, or another value of it; the Space starts again. Raises HubFailure."""
    call(lambda: api().add_space_secret(repo_id, name, value, description=description), patience=patience)
