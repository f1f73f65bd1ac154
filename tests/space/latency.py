"""How long a visitor waits, on the models of an output folder: `python -m tests.space.latency outputs/quickstart`.

Processor time beside wall time, because other work on the machine changes the second only; and the same answers by
`evaluate.generate`, one system after the other, in the same process.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from inspo_hub.evaluate import Prompt, Sampling, generate
from inspo_hub.models import load_model, load_tokenizer
from inspo_hub.space import space_of_output
from inspo_hub.space.models import LocalModels, SystemFiles

PROMPTS = 12


def measure(output: Path) -> dict[str, tuple[float, float]]:
    """What is timed -> medians over the prompts of (wall, processor) seconds; the first prompt warms up."""
    torch.set_num_threads(1)
    config = space_of_output(output, backend="models")
    files = {each.name: SystemFiles(model=Path(str(each.model)), beta=each.beta) for each in config.systems}
    models = LocalModels(files, Path(str(config.base)), device="cpu")
    plain = {name: load_model(each.model).eval() for name, each in files.items()}
    tokenizer = load_tokenizer(next(iter(files.values())).model)
    asked = [each.text for each in config.examples]
    times: dict[str, list[tuple[float, float]]] = {}

    def timed(what: str, action: Callable[[], Any]) -> Any:
        before = time.perf_counter(), time.process_time()
        result = action()
        times.setdefault(what, []).append((time.perf_counter() - before[0], time.process_time() - before[1]))
        return result

    for number in range(PROMPTS + 1):
        conversation = [{"role": "user", "content": asked[number % len(asked)]}]
        sampling = config.sampling.model_copy(update={"seed": number})
        stream = models.stream(conversation, sampling)
        timed("first token of both", lambda stream=stream: [next(stream), next(stream)])  # type: ignore[misc]
        last = timed("the rest of both answers", lambda stream=stream: list(stream)[-1])  # type: ignore[misc]
        timed("rewards after the vote", lambda: models.rewards(conversation, last))  # noqa: B023
        settings = Sampling(max_new_tokens=sampling.max_new_tokens, temperature=sampling.temperature, seed=number)
        prompt = Prompt(tuple(conversation), "row")
        timed(
            "the same answers by evaluate.generate",
            lambda: [generate(each, tokenizer, [prompt], settings) for each in plain.values()],  # noqa: B023
        )
    return {what: _median(found[1:]) for what, found in times.items()}


def _median(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    walls, processors = zip(*pairs, strict=True)
    return statistics.median(walls), statistics.median(processors)


if __name__ == "__main__":
    for what, (wall, processor) in measure(Path(sys.argv[1])).items():
        print(f"{what}: {1000 * wall:.0f} ms, {1000 * processor:.0f} ms of processor time")
