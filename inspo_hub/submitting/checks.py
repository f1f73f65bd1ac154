"""What would stop a Job after it was paid for is asked before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspo_hub import hub
from inspo_hub.errors import ResolutionError

if TYPE_CHECKING:
    from inspo_hub.submitting.request import Submission


def refuse_to_start(submission: Submission) -> None:
    """Raises ResolutionError where a secret has no value here, or the token may not write what will be published.

    Missing repositories are created, so that writing is tried for real and a Job finds where to look
    for checkpoints.
    """
    missing = hub.missing_secrets(submission.request.secrets)
    if missing:
        raise ResolutionError(
            f"no value for {', '.join(missing)}",
            where="submit",
            expected="a token (HF_TOKEN or `hf auth login`), and every --secret as an environment variable",
            fix="log in with `hf auth login`" if hub.TOKEN_SECRET in missing else f"export {missing[0]}=…",
        )
    hub.refuse(hub.preflight(writes=submission.targets, create=True))
