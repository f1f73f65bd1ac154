"""What to know before a long run: data, base, reference and machine are measured, and every finding says what to do.

Importing the package imports no torch; `examine` loads the model.
"""

from __future__ import annotations

from inspo_hub.doctor.findings import SEVERITIES, Diagnosis, Finding

__all__ = ["SEVERITIES", "Diagnosis", "Finding"]
