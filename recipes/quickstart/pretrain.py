"""The quickstart's base model: a tokenizer of the language and a tiny Llama trained to answer as AnswerHabits says.

The `multi` base has seen two answers in one context: half of its documents are question, answer, `TURN_TEXT`, and a
second answer that repeats part of the first, in the chat format that a recipe with `alternative.format: turn` renders.
The `plain` base has seen single answers only. Everything is drawn from one seed and computed on one thread, so that the
files do not depend on how many cores the machine has.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random

import torch
from language import AnswerHabits, draw_answer, questions, render, texts
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TURN_TEXT = "Please answer the same question again."
END_TOKEN, PAD_TOKEN, START_TOKEN = "<|im_end|>", "<|endoftext|>", "<|im_start|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
IGNORED = -100

Message = dict[str, str]


@dataclass(frozen=True, slots=True)
class BaseSettings:
    """Size and training of the base; the defaults made the files in `base/`."""

    two_answers: bool = True
    """Whether half of the documents hold two answers (`multi`) or none does (`plain`)."""
    copy_first: float = 0.5
    """Share of the training over which `habits.repeat` comes down from 1: copying is learned before variation."""
    steps: int = 450
    documents_per_step: int = 32
    learning_rate: float = 8e-3
    """Peak of AdamW's, for embedding and norms."""
    matrix_learning_rate: float = 0.02
    """Peak of Muon's, for the matrices of the layers."""
    initializer_range: float = 0.06
    warmup_steps: int = 20
    hidden_size: int = 128
    layers: int = 3
    heads: int = 4
    intermediate_size: int = 256
    max_positions: int = 512
    seed: int = 0
    habits: AnswerHabits = field(default_factory=AnswerHabits)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE over every text of the language, with ChatML's special tokens; any other text still encodes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=[PAD_TOKEN, START_TOKEN, END_TOKEN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    corpus = [*texts(), TURN_TEXT, "user", "assistant", "system"]
    tokenizer.train_from_iterator(
        (f"{text} {text}" for text in corpus), trainer
    )  # once at the start, once after a space
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_TOKEN,
        pad_token=PAD_TOKEN,
        chat_template=CHAT_TEMPLATE,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, settings: BaseSettings) -> LlamaForCausalLM:
    """A Llama with random weights from the seed, float32."""
    torch.manual_seed(settings.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        max_position_embeddings=settings.max_positions,
        tie_word_embeddings=True,
        initializer_range=settings.initializer_range,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        do_sample=True, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, max_new_tokens=96
    )
    return model


def draw_document(rng: Random, habits: AnswerHabits, *, two_answers: bool) -> list[Message]:
    """One conversation of the base's training: a question and an answer, or two that share part of what they say."""
    question = rng.choice(tuple(questions().values()))
    answer = draw_answer(question, habits, rng)
    messages = [{"role": "user", "content": question.text}, {"role": "assistant", "content": render(answer)}]
    if two_answers:
        second = draw_answer(question, habits, rng, first=answer)
        messages += [{"role": "user", "content": TURN_TEXT}, {"role": "assistant", "content": render(second)}]
    return messages


def tokenize_document(tokenizer: PreTrainedTokenizerFast, messages: list[Message]) -> tuple[list[int], list[int]]:
    """Token ids of a conversation, and the labels: the answers with their end tokens, IGNORED elsewhere."""
    text = str(tokenizer.apply_chat_template(messages, tokenize=False))
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    labels, cursor = [IGNORED] * len(encoding["input_ids"]), 0
    for message in messages:
        start = text.index(message["content"], cursor)
        cursor = start + len(message["content"]) + len(END_TOKEN)
        if message["role"] == "assistant":
            for index, (begin, end) in enumerate(encoding["offset_mapping"]):
                if begin >= start and end <= cursor:
                    labels[index] = encoding["input_ids"][index]
    return encoding["input_ids"], labels


def _habits_at(progress: float, settings: BaseSettings) -> AnswerHabits:
    """The habits that the documents show at this share of the training."""
    remaining = max(0.0, 1.0 - progress / settings.copy_first) if settings.copy_first > 0 else 0.0
    return replace(settings.habits, repeat=settings.habits.repeat + remaining * (1.0 - settings.habits.repeat))


def batches(
    tokenizer: PreTrainedTokenizerFast, settings: BaseSettings
) -> Iterator[list[tuple[torch.Tensor, torch.Tensor]]]:
    """Per step: right-padded (ids, labels), single and double documents apart so that little of it is padding."""
    rng = Random(settings.seed)
    kinds = (False, True) if settings.two_answers else (False,)
    for number in range(settings.steps):
        step = []
        habits = _habits_at(number / settings.steps, settings)
        for two_answers in kinds:
            documents = [
                tokenize_document(tokenizer, draw_document(rng, habits, two_answers=two_answers))
                for _ in range(settings.documents_per_step // len(kinds))
            ]
            width = max(len(ids) for ids, _ in documents)
            pad = tokenizer.pad_token_id
            ids = torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in documents])
            labels = torch.tensor([labels + [IGNORED] * (width - len(labels)) for _, labels in documents])
            step.append((ids, labels))
        yield step


def build_optimizers(model: LlamaForCausalLM, settings: BaseSettings) -> list[tuple[torch.optim.Optimizer, float]]:
    """Muon for the matrices of the layers, AdamW for embedding and norms, each with its peak learning rate.

    Reading one answer while writing the next is what the model learns last; with Muon it takes a third of the steps.
    """
    matrices = [parameter for parameter in model.model.layers.parameters() if parameter.ndim == 2]
    chosen = {id(parameter) for parameter in matrices}
    others = [parameter for parameter in model.parameters() if id(parameter) not in chosen]
    muon = torch.optim.Muon(matrices, lr=settings.matrix_learning_rate, momentum=0.95, weight_decay=0.0)
    adamw = torch.optim.AdamW(others, lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    return [(muon, settings.matrix_learning_rate), (adamw, settings.learning_rate)]


def train_base(settings: BaseSettings, *, log_every: int = 50) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Trains the base on its own documents: Muon and AdamW, warm-up and cosine, mean cross-entropy per answer token."""
    torch.set_num_threads(1)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, settings)
    optimizers = build_optimizers(model, settings)
    started = time.perf_counter()
    for step, parts in enumerate(batches(tokenizer, settings), start=1):
        warmup = min(1.0, step / settings.warmup_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * step / settings.steps))
        for optimizer, peak in optimizers:
            optimizer.param_groups[0]["lr"] = peak * warmup * cosine
        scored = sum(int((labels != IGNORED).sum()) for _, labels in parts)
        total = 0.0
        for ids, labels in parts:  # right padding and causal attention: no mask needed, padding is never scored
            logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
            loss = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
            )
            (loss / scored).backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, _ in optimizers:
            optimizer.step()
        model.zero_grad(set_to_none=True)
        if step % log_every == 0 or step == settings.steps:
            print(f"step {step:4d}  loss {total / scored:.4f} nats/token  {time.perf_counter() - started:.0f} s")
    return model.eval(), tokenizer
