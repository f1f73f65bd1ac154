"""docs/scaling.md's tables from the cost model: `python -m tests.scaling_page` writes them, a test holds them equal.

Nothing here was run on a GPU: memory follows the formulas of `inspo_hub.plan.memory`, times the assumed speeds of
`inspo_hub.plan.hardware`, prices the dated table there.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from inspo_hub.cost import ModelShape
from inspo_hub.plan.estimate import estimate
from inspo_hub.plan.hardware import DEVICES, Device, Flavour, price_list
from inspo_hub.plan.machines import MachineEstimate, Machines, Setting
from inspo_hub.plan.memory import ENGINES, Engine
from inspo_hub.plan.timing import assumed_speed
from inspo_hub.plan.variants import Variant
from tests.plan.facts import EIGHT, draw_rows, variant_of

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
BEGIN, END = "<!-- tables: python -m tests.scaling_page -->\n", "<!-- end of tables -->\n"
SHAPES = {
    "1.2 B": ModelShape(hidden=2048, layers=16, heads=32, kv_heads=8, intermediate=8192, vocab=128_256, head_dim=64),
    "8 B": EIGHT,
    "32 B": ModelShape(hidden=5120, layers=64, heads=40, kv_heads=8, intermediate=25_600, vocab=151_936, head_dim=128),
    "70 B": ModelShape(hidden=8192, layers=80, heads=64, kv_heads=8, intermediate=28_672, vocab=128_256, head_dim=128),
}
"""Shapes of published dense decoders: Llama 3.2 1B, Llama 3.1 8B, Qwen3 32B, Llama 3.1 70B."""
LORA = {"r": 16}
PAIRS = 60_000
ROWS = draw_rows(200, prompt=137, response=330, most=1800)
"""Log-normal lengths around UltraFeedback's."""
GPUS = (1, 8, 16, 64)
BUDGET = 8192
NODES = (2, 4, 8)
NETWORK = 25e9
"""ASSUMED: bytes per second of each GPU between machines."""
RAM_GB = 2048


def variant(size: str, *, adapter: bool = False, conditioning: str = "symmetric") -> Variant:
    keys = {"adapter": LORA} if adapter else {}
    return variant_of(ROWS, shape=SHAPES[size], pairs=PAIRS, conditioning={"name": conditioning}, **keys)


def tables() -> str:
    """Memory by engine, then what a run takes on one machine, then on several."""
    return "\n".join(
        [
            "**Memory of one GPU in GB**, symmetric, bfloat16 around float32 weights, recomputation, "
            f"{BUDGET} tokens a micro-batch; the larger of training and reference pass:\n",
            *_memory_rows(),
            f"\n**One epoch of {PAIRS:,} pairs on one machine** of the Hub's Jobs; the cheapest that is done in a day, "
            "or the fastest:\n",
            *_machine_rows(),
            "\n**The same on several machines of eight H200**, joined at 25 GB/s for each GPU (ASSUMED):\n",
            *_node_rows(),
            "",
        ]
    )


def _memory_rows() -> list[str]:
    engines: list[Engine] = [engine for engine in ENGINES if engine != "single"]
    lines = ["| model | GPUs | " + " | ".join(engines) + " |", "|---|---:|" + "---:|" * len(engines)]
    for size in SHAPES:
        for adapter in (False, True):
            machines = Machines([variant(size, adapter=adapter)])
            for gpus in GPUS:
                cells = [_gb(machines, engine, gpus) for engine in engines]
                lines.append(f"| {size}{', LoRA r 16' if adapter else ''} | {gpus} | " + " | ".join(cells) + " |")
    return lines


def _gb(machines: Machines, engine: Engine, gpus: int) -> str:
    """One device has no engine: it is shown once, under DDP, whose buckets it does not need."""
    if gpus == 1:
        engine = "single" if engine == "ddp" else engine
        if engine != "single":
            return ""
    return f"{machines.memory(Setting(engine, gpus, BUDGET, True), on_gpu=True).total / 1e9:,.0f}"


def _machine_rows() -> list[str]:
    lines = [
        "| model | | machine | engine | tokens a micro-batch | tokens/s | hours | $ |",
        "|---|---|---|---|---:|---:|---:|---:|",
    ]
    for size in SHAPES:
        for adapter, conditioning in ((False, "none"), (False, "symmetric"), (True, "symmetric")):
            one = variant(size, adapter=adapter, conditioning=conditioning)
            found = estimate([one], price_list(None))
            what = ("DPO" if conditioning == "none" else "InSPO") + (", LoRA" if adapter else "")
            if found.chosen is None:
                nearest = min(found.machines, key=lambda machine: machine.memory.total if machine.memory else 1e30)
                lines.append(f"| {size} | {what} | none: {nearest.flavour.name} {nearest.why_not} | | | | | |")
                continue
            lines.append(f"| {size} | {what} | {found.chosen.flavour.name} | " + _cells(one, found.chosen) + " |")
    return lines


def _cells(one: Variant, machine: MachineEstimate) -> str:
    setting, hours = machine.setting, machine.hours
    assert setting is not None
    assert hours is not None
    speed = one.workload.tokens / hours.seconds["training"]
    cells = (
        setting.engine,
        f"{setting.tokens_per_microbatch:,}",
        f"{speed:,.0f}",
        f"{hours.total:,.1f}",
        f"{machine.usd:,.0f}",
    )
    return " | ".join(cells)


class Cluster(Flavour):
    """Several machines of eight H200 as one, whose GPUs exchange over a network."""

    @property
    def device(self) -> Device:
        return replace(DEVICES["H200"], link=NETWORK)


def _node_rows() -> list[str]:
    columns = ("model", "", "machines", "engine", "tokens a micro-batch", "tokens/s", "hours", "$")
    lines = [f"| {' | '.join(columns)} |", "|---|---|---:|---|---:|---:|---:|---:|"]
    for adapter in (False, True):
        one = variant("70 B", adapter=adapter)
        machines = Machines([one])
        for nodes in NODES:
            cluster = Cluster(
                name=f"{nodes} × h200x8", usd_per_hour=40.0 * nodes, vcpus=184, ram_gb=RAM_GB * nodes, disk_gb=24_000,
                gpus=8 * nodes, gpu="H200", gpu_gb=141,
            )  # fmt: skip
            found = machines.estimate(cluster, assumed_speed(cluster.device, one.model.shape))
            cells = _cells(one, found) if found.hours else f"{found.why_not} | | | | "
            lines.append(f"| 70 B | InSPO{', LoRA' if adapter else ''} | {nodes} | {cells} |")
    return lines


def page() -> str:
    """The page with its tables written anew."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    return before + BEGIN + "\n" + tables() + "\n" + END + after


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
