"""`accelerate launch --config_file …/fsdp2.yaml -m tests.engines.fsdp_on_cpu RECIPE …`: FSDP2 on processors with gloo.

accelerate chooses FSDP for accelerators only; here its choice holds for processors too. Everything else is the run.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from inspo_hub.cli import main

_before = AcceleratorState.__init__


@functools.wraps(_before)
def _with_fsdp(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
    _before(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if self.distributed_type == DistributedType.MULTI_CPU and fsdp_plugin is not None:
        if self._mixed_precision != "no":
            fsdp_plugin.set_mixed_precision(self._mixed_precision)
        self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        self.fsdp_plugin = fsdp_plugin


if __name__ == "__main__":
    assert os.environ["ACCELERATE_USE_FSDP"] == "true", "launch it with an FSDP profile"
    AcceleratorState.__init__ = _with_fsdp
    sys.exit(main(["run", *sys.argv[1:]]))
