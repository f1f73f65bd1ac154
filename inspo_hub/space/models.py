"""Answers of both systems from models on this machine, token by token in turn, and what each thinks of both answers."""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from inspo_hub.adapters import adapter_off, add_adapter, existing_adapter
from inspo_hub.errors import DataError
from inspo_hub.evaluate.generation import InverseCdfSampler, PromptEncoder, Sampling, row_uniforms, stop_token_ids
from inspo_hub.evaluate.likelihood import response_logps
from inspo_hub.evaluate.prompts import Prompt
from inspo_hub.models import compute_dtype, load_model, load_tokenizer
from inspo_hub.space.config import SamplingSection
from inspo_hub.space.rewards import Rewards
from inspo_hub.space.rounds import Message, Piece

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemFiles:
    """Where a system lies on this disk: a whole model, or an adapter and its base."""

    model: Path
    adapter: Path | None = None
    beta: float | None = None


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A system in memory: the folder of its model, the name of its adapter on it, and how it reads prompts."""

    folder: Path
    adapter: str | None
    encoder: PromptEncoder


class LocalModels:
    """Two systems, and the base that both came from. Weights of one folder are loaded once."""

    def __init__(
        self, systems: Mapping[str, SystemFiles], base: Path | None = None, *, device: str | None = None
    ) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._dtype = compute_dtype("auto", self.device)
        self._betas = {name: files.beta for name, files in systems.items()}
        self._models: dict[Path, PreTrainedModel] = {}
        self._wrappers: dict[Path, Any] = {}
        # One step of one side at a time: adapters are switched on a model that all visitors share.
        self._lock = threading.Lock()
        self._systems = {name: self._open(name, files) for name, files in systems.items()}
        self._base = base
        if base is not None:
            self._model(base)

    def _open(self, name: str, files: SystemFiles) -> _Loaded:
        own = files.adapter if files.adapter is not None else files.model
        tokenizer = load_tokenizer(own if (own / "tokenizer.json").is_file() else files.model)
        encoder = PromptEncoder(tokenizer, chat=bool(getattr(tokenizer, "chat_template", None)))
        model = self._model(files.model)
        if files.adapter is None:
            return _Loaded(files.model, None, encoder)
        wrapper = self._wrappers.get(files.model)
        if wrapper is None:
            wrapper = existing_adapter(model, files.adapter, trainable=False, name=name)
            self._wrappers[files.model] = wrapper.to(self.device).eval()
        else:
            add_adapter(wrapper, files.adapter, name=name)
        return _Loaded(files.model, name, encoder)

    def _model(self, folder: Path) -> PreTrainedModel:
        if folder not in self._models:
            model: Any = load_model(folder, dtype=self._dtype)
            self._models[folder] = model.to(self.device).eval()
        return self._models[folder]

    @contextmanager
    def active(self, folder: Path, adapter: str | None) -> Iterator[PreTrainedModel]:
        """The model of a folder with one of its adapters, or with none, for the length of the block."""
        wrapper = self._wrappers.get(folder)
        if wrapper is None:
            yield self._models[folder]
        elif adapter is None:
            with adapter_off(wrapper):
                yield wrapper.get_base_model()
        else:
            wrapper.set_adapter(adapter)
            yield wrapper.get_base_model()

    def stream(self, conversation: Sequence[Message], sampling: SamplingSection) -> Iterator[dict[str, Piece]]:
        """Both answers, one more token of each per item, until both have ended; drawn with the same uniform numbers.

        Token for token what `evaluate.generate` draws for this prompt with this seed. A side that fails ends, and the
        other goes on.
        """
        prompt = Prompt(tuple(conversation), "visitor")
        sides = {name: _Writing(self, system, prompt, sampling) for name, system in self._systems.items()}
        yield {name: side.piece for name, side in sides.items()}
        while not all(side.piece.ended for side in sides.values()):
            for name, side in sides.items():
                if not side.piece.ended:
                    with self._lock:
                        side.step(name)
            yield {name: side.piece for name, side in sides.items()}

    def rewards(self, conversation: Sequence[Message], answers: Mapping[str, Piece]) -> Rewards | None:
        """β·(log π(y|x) - log π_base(y|x)) of every answer under both systems, in nats; None without a base or β.

        Also None where the systems have different tokenizers: their log-probabilities are of different events.
        """
        betas = {name: beta for name, beta in self._betas.items() if beta is not None}
        if self._base is None or len(betas) < len(self._systems) or not self._one_tokenizer():
            return None
        first = next(iter(self._systems.values()))
        prompt_ids = first.encoder([Prompt(tuple(conversation), "visitor")])[0]
        names = [name for name, piece in answers.items() if piece.token_ids]
        prompts, responses = [prompt_ids] * len(names), [answers[name].token_ids for name in names]
        found: dict[str, dict[str, float]] = {}
        with self._lock:
            with self.active(self._base, None) as base:
                reference = response_logps(base, prompts, responses)
            for name, system in self._systems.items():
                with self.active(system.folder, system.adapter) as model:
                    ratios = betas[name] * (response_logps(model, prompts, responses) - reference)
                found[name] = dict(zip(names, ratios.tolist(), strict=True))
        return Rewards(found, betas)

    def _one_tokenizer(self) -> bool:
        first, second = (system.encoder.tokenizer for system in self._systems.values())
        return first.get_vocab() == second.get_vocab()


class _Writing:
    """One side's answer as it is written: its cache, its uniform numbers, and the piece so far."""

    def __init__(self, models: LocalModels, system: _Loaded, prompt: Prompt, sampling: SamplingSection) -> None:
        self._models, self._system = models, system
        self._prompt, self._sampling = prompt, sampling
        self.piece = Piece()
        self._cache: Any = None
        self._ids: list[int] = []
        self._stops: list[int] = []
        self._sampler: InverseCdfSampler | None = None

    @torch.no_grad()
    def step(self, name: str) -> None:
        """Writes one token. What goes wrong ends this side alone; its cause goes to the log, and not to the page."""
        started = time.perf_counter()
        try:
            with self._models.active(self._system.folder, self._system.adapter) as model:
                if self.piece.state == "waiting":
                    self._begin(model)
                token = self._next_token(model)
        except DataError as error:
            self.piece = replace(self.piece, state="failed", problem=f"{error.what}. {error.fix}")
        except Exception:
            log.exception("%s could not go on with its answer", name)
            self.piece = replace(self.piece, state="failed", problem="The model failed on this prompt.")
        else:
            self.piece = self._piece_with(token, self.piece.seconds + time.perf_counter() - started)

    def _piece_with(self, token: int, seconds: float) -> Piece:
        ids = (*self.piece.token_ids, token)
        text = str(self._system.encoder.tokenizer.decode(list(ids), skip_special_tokens=True))
        if token in self._stops:
            return Piece(text, len(ids), seconds, "finished", "", ids)
        if len(ids) == self._sampling.max_new_tokens:
            return Piece(text, len(ids), seconds, "cut", "", ids)
        # What is yet to come of a character is no text.
        return Piece(text.rstrip("\N{REPLACEMENT CHARACTER}"), len(ids), seconds, "writing", "", ids)

    def _begin(self, model: PreTrainedModel) -> None:
        encoder = self._system.encoder
        self._ids = encoder([self._prompt])[0]
        limit = getattr(model.config, "max_position_embeddings", None)
        if limit is not None and len(self._ids) + self._sampling.max_new_tokens > limit:
            raise DataError(
                f"The conversation has {len(self._ids)} tokens and the model {limit} positions",
                fix="Ask for a shorter answer, or start a new conversation.",
            )
        self._stops = stop_token_ids(model, encoder)
        if self._sampling.temperature > 0:
            settings = Sampling(max_new_tokens=self._sampling.max_new_tokens, seed=self._sampling.seed)
            self._sampler = InverseCdfSampler(
                torch.from_numpy(row_uniforms(settings, self._prompt, 0))[None],
                prompt_width=len(self._ids),
                temperature=self._sampling.temperature,
                top_p=self._sampling.top_p,
            )

    def _next_token(self, model: PreTrainedModel) -> int:
        new = self.piece.token_ids[-1:] or tuple(self._ids)
        options = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
        ids = torch.tensor([list(new)], device=model.device)
        output: Any = model(input_ids=ids, past_key_values=self._cache, use_cache=True, **options)
        self._cache = output.past_key_values
        scores = output.logits[:, -1].float()
        if self._sampler is not None:
            so_far = torch.empty(1, len(self._ids) + len(self.piece.token_ids), dtype=torch.long)
            scores = self._sampler(so_far, scores)
        return int(scores.argmax(dim=-1))
