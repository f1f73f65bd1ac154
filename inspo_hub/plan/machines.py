"""One machine for a whole run: does it fit, under which engine and token budget, how long, and for how much."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from inspo_hub.plan.hardware import Flavour
from inspo_hub.plan.memory import ENGINES, KEPT_BYTES, USABLE, Engine, Memory, peak_memory
from inspo_hub.plan.timing import NO_WORK, Hours, Speed, Work, exchanged_bytes, optimizer_seconds, step_seconds
from inspo_hub.plan.variants import Variant, reference_passes
from inspo_hub.views import SCORES

if TYPE_CHECKING:
    from inspo_hub.plan.variants import ReferencePass

BUDGETS = (4096, 8192, 16_384, 32_768, 65_536)
"""Values of `train.tokens_per_microbatch` that a plan chooses from; none of them changes what is trained."""
START_S = 150.0
"""ASSUMED: a Job's container, packages and imports."""
DOWNLOAD_BYTES_PER_S = 200e6
DISK_BYTES_PER_S = 1e9
TOKENISED_ROWS_PER_S = 300.0
GENERATED_AT_ONCE = 128
"""Answers of one batch, as `evaluate` makes them."""
RAM_LEFT_BYTES = 3e9
"""ASSUMED: main memory that everything but the weights takes."""
_CHECKPOINT_BYTES = 12
"""Of a checkpoint, for each trained number: weight and Adam's two moments in float32."""


@dataclass(frozen=True)
class Setting:
    """What a machine is told: nothing in it changes what is trained."""

    engine: Engine
    devices: int
    tokens_per_microbatch: int
    checkpointing: bool


@dataclass(frozen=True, kw_only=True)
class MachineEstimate:
    """A run on one machine."""

    flavour: Flavour
    setting: Setting | None
    """None: it does not fit, whatever it is told."""
    memory: Memory | None
    """Of the variant that needs most; of the setting that comes closest where none fits."""
    hours: Hours | None
    """None: it does not fit, or nothing is known of its speed."""
    step_seconds: Mapping[str, float] = field(default_factory=dict)
    why_not: str = ""
    measured: bool = False

    @property
    def usd(self) -> float | None:
        return None if self.hours is None else self.hours.total * self.flavour.usd_per_hour

    def to_dict(self) -> dict[str, Any]:
        setting, flavour = self.setting, self.flavour
        return {
            "flavor": flavour.name,
            "gpus": flavour.gpus,
            "gpu": flavour.gpu or None,
            "usd_per_hour": flavour.usd_per_hour,
            "fits": setting is not None,
            "why_not": self.why_not or None,
            "engine": setting.engine if setting else None,
            "tokens_per_microbatch": setting.tokens_per_microbatch if setting else None,
            "activation_checkpointing": setting.checkpointing if setting else None,
            "memory_bytes": self.memory.total if self.memory else None,
            "memory_parts": dict(self.memory.parts) if self.memory else None,
            "seconds_per_step": dict(self.step_seconds),
            "hours": self.hours.total if self.hours else None,
            "seconds": dict(self.hours.seconds) if self.hours else None,
            "usd": self.usd,
            "measured": self.measured,
        }


class Machines:
    """Estimates of one run on any machine; what does not depend on the machine is computed once."""

    def __init__(self, variants: Sequence[Variant]) -> None:
        self.variants = tuple(variants)
        self.passes: list[ReferencePass] = reference_passes(variants)
        self._lockstep = lru_cache(maxsize=None)(self._compute_lockstep)
        self._works = lru_cache(maxsize=None)(self._compute_works)
        self._heldout = {v.name: v.forward(heldout=SCORES) for v in self.variants}

    # --- one machine ----------------------------------------------------------------------------------------------

    def estimate(self, flavour: Flavour, speed: Speed | None) -> MachineEstimate:
        """The fastest setting that fits, its time and price."""
        room = self.capacity(flavour)
        refusal = self._refusal(flavour)
        fitting: list[tuple[float, Setting, Memory]] = []
        nearest: Memory | None = None
        for setting in self.settings(flavour):
            memory = self.memory(setting, on_gpu=flavour.gpus > 0)
            if nearest is None or memory.total < nearest.total:
                nearest = memory
            if memory.total <= room:
                seconds = sum(self._training_seconds(setting, speed, flavour).values()) if speed else 0.0
                fitting.append((seconds, setting, memory))
        if refusal or not fitting:
            assert nearest is not None, "there is always a setting to try"
            short = f"needs {nearest.total / 1e9:.1f} GB of {room / 1e9:.1f} GB on a device at least"
            return MachineEstimate(flavour=flavour, setting=None, memory=nearest, hours=None, why_not=refusal or short)
        order = list(ENGINES)
        # Times within a percent are one: then the simpler engine and the recipe's own habits are the better choice.
        best = min(seconds for seconds, _, _ in fitting)
        near = [choice for choice in fitting if choice[0] <= best * 1.01]
        _, setting, memory = min(near, key=lambda choice: (order.index(choice[1].engine), choice[0]))
        if speed is None:
            return MachineEstimate(
                flavour=flavour, setting=setting, memory=memory, hours=None, why_not="no speed is known of its GPU"
            )
        return MachineEstimate(
            flavour=flavour,
            setting=setting,
            memory=memory,
            hours=self._hours(setting, speed, flavour),
            step_seconds=self._step_seconds(setting, speed, flavour),
            measured=speed.measured,
        )

    @staticmethod
    def capacity(flavour: Flavour) -> float:
        """Bytes of a device that a step may fill."""
        return (flavour.gpu_gb if flavour.gpus else flavour.ram_gb) * 1e9 * USABLE

    def settings(self, flavour: Flavour) -> Iterator[Setting]:
        """Engines, token budgets and recomputation that can be chosen there."""
        chosen = {variant.recipe.train.activation_checkpointing for variant in self.variants}
        recompute = (False, True) if None in chosen else tuple(sorted(bool(choice) for choice in chosen))
        if not flavour.gpus and None in chosen:
            recompute = (False,)
        devices = max(1, flavour.gpus)
        engines: tuple[Engine, ...] = ("single",) if devices == 1 else tuple(e for e in ENGINES if e != "single")
        for engine in engines:
            for budget in BUDGETS:
                for checkpointing in recompute:
                    yield Setting(engine, devices, budget, checkpointing)

    def _refusal(self, flavour: Flavour) -> str:
        """What stands in the way beside the devices' memory; empty where nothing does."""
        processes = max(1, flavour.gpus)
        weights = max(variant.model.parameters * (4 if variant.adapter is None else 2) for variant in self.variants)
        ram = processes * weights + RAM_LEFT_BYTES
        if flavour.gpus and ram > flavour.ram_gb * 1e9:
            return f"loading takes {ram / 1e9:.0f} GB of main memory, it has {flavour.ram_gb:g}"
        if flavour.disk_gb and self.disk_bytes > flavour.disk_gb * 1e9:
            return f"needs {self.disk_bytes / 1e9:.0f} GB of disk, it has {flavour.disk_gb:g}"
        return ""

    @property
    def disk_bytes(self) -> float:
        """What a run writes: downloads, checkpoints that are kept and one being written, results."""
        downloads = {variant.model.name: variant.model.download_bytes for variant in self.variants}
        kept = sum(
            (_CHECKPOINT_BYTES * variant.trained) * (variant.recipe.train.keep_checkpoints + 1) + 4.0 * variant.trained
            for variant in self.variants
        )
        return sum(downloads.values()) + kept

    def memory(self, setting: Setting, *, on_gpu: bool) -> Memory:
        """Of the variant that needs most."""
        return max((self.memory_of(v, setting, on_gpu=on_gpu) for v in self.variants), key=lambda memory: memory.total)

    @staticmethod
    def memory_of(variant: Variant, setting: Setting, *, on_gpu: bool) -> Memory:
        tokens = variant.workload.largest_micro_batch(setting.tokens_per_microbatch)
        a_step = variant.workload.tokens / variant.workload.steps / setting.devices
        return peak_memory(
            variant.model,
            variant.training(on_gpu=on_gpu, checkpointing=setting.checkpointing),
            tokens=tokens,
            scored=round(tokens * variant.workload.scored_share),
            backward=round(tokens * variant.workload.trained_share),
            accumulates=a_step > setting.tokens_per_microbatch,
            engine=setting.engine,
            devices=setting.devices,
            on_gpu=on_gpu,
            other_reference=variant.reference.parameters if variant.reference else 0,
        )

    # --- time -----------------------------------------------------------------------------------------------------

    def _compute_works(self, place: int, recompute: bool, kind: str) -> list[Work]:
        return self.variants[place].works(checkpointing=recompute, kept_bytes=KEPT_BYTES[kind])

    def _compute_lockstep(self, place: int, devices: int, budget: int, recompute: bool, kind: str) -> list[list[Work]]:
        works = self._works(place, recompute, kind)
        return self.variants[place].workload.lockstep(works, processes=devices, budget=budget)

    def _step_seconds(self, setting: Setting, speed: Speed, flavour: Flavour) -> dict[str, float]:
        """Mean seconds of a step, by variant."""
        device = flavour.device
        link = device.link if device is not None and setting.devices > 1 else 0.0
        found = {}
        for place, variant in enumerate(self.variants):
            per_micro_batch, per_step = exchanged_bytes(variant.model, variant.trained, setting.engine, setting.devices)
            steps = self._lockstep(
                place,
                setting.devices,
                setting.tokens_per_microbatch,
                setting.checkpointing,
                "gpu" if flavour.gpus else "cpu",
            )
            seconds = [
                step_seconds(works, speed, link=link, per_micro_batch=per_micro_batch, per_step=per_step)
                for works in steps
            ]
            shared = setting.devices if setting.engine in ("zero2", "zero3", "fsdp2") else 1
            found[variant.name] = sum(seconds) / len(seconds) + optimizer_seconds(speed, variant.trained / shared)
        return found

    def _training_seconds(self, setting: Setting, speed: Speed, flavour: Flavour) -> dict[str, float]:
        seconds = self._step_seconds(setting, speed, flavour)
        return {v.name: seconds[v.name] * v.workload.steps for v in self.variants}

    def _hours(self, setting: Setting, speed: Speed, flavour: Flavour) -> Hours:
        scored = [one.work for one in self.passes]
        heldout = [self._heldout[v.name].times(v.evaluations) for v in self.variants]
        seconds = {
            "start": 0.0 if speed.measured else START_S,
            "download": 0.0 if speed.measured else self._download_bytes() / DOWNLOAD_BYTES_PER_S,
            "tokenising": max(v.data.train_pairs + v.data.heldout_pairs for v in self.variants) / TOKENISED_ROWS_PER_S,
            "reference pass": self._forward_seconds(scored, setting, speed),
            "training": sum(self._training_seconds(setting, speed, flavour).values()),
            "held-out pairs": self._forward_seconds(heldout, setting, speed),
            "checkpoints": sum(v.saves * _CHECKPOINT_BYTES * v.trained for v in self.variants) / DISK_BYTES_PER_S,
            "evaluation": self._generation_seconds(speed),
        }
        return Hours({name: value for name, value in seconds.items() if value > 0})

    def _download_bytes(self) -> float:
        models = [model for v in self.variants for model in (v.model, v.reference) if model is not None]
        return sum({model.name: model.download_bytes for model in models}.values())

    @staticmethod
    def _forward_seconds(works: Sequence[Work], setting: Setting, speed: Speed) -> float:
        """Of forward passes without gradient, dealt to the devices, in micro-batches under the budget."""
        total = NO_WORK
        for work in works:
            total = total.plus(work)
        number = total.tokens / setting.tokens_per_microbatch / setting.devices
        share = total.times(1 / setting.devices)
        busy = speed.seconds(share) - speed.per_micro_batch_s
        return max(busy, number * speed.least_s / 3) + number * speed.per_micro_batch_s

    def _generation_seconds(self, speed: Speed) -> float:
        """ROUGH: every new token of a batch reads all weights once; answers end at half of `max_new_tokens`."""
        evaluate = self.variants[0].recipe.evaluate
        prompts = self.variants[0].data.prompts
        if evaluate is None or not prompts:
            return 0.0
        answers = min(prompts, evaluate.limit or prompts) * evaluate.samples_per_prompt
        batches = -(-answers // GENERATED_AT_ONCE)
        weights = max(v.model.parameters for v in self.variants)
        a_token = max(
            4.0 * weights / speed.optimizer_bytes_per_s,
            2.0 * weights * min(answers, GENERATED_AT_ONCE) / speed.body,
            speed.least_s,
        )
        systems = len(self.variants) + 1
        return systems * batches * evaluate.max_new_tokens / 2 * a_token
