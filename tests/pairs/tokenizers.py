"""Small tokenizers of every kind that matters, trained in a moment, and chat templates of the known forms."""

from __future__ import annotations

import json
from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "Which city is the capital of France? Paris is the capital of France, and London that of England.",
    "The sky is blue. It is green in the evening, they say; the answer: it depends on the light.",
    "Write a short poem about rivers.\n\nRivers run and rivers bend,\n- one\n- two\n\n```python\nprint('x')\n```",
    "Question: what is two and three? Answer: five. Please give another answer to my previous message.",
    "user assistant system Human Assistant You are a helpful assistant. Opinions differ about it. " * 3,
] * 3

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHATML_DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}"
    "{% endif %}" + CHATML
)
LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n'"
    " + m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' + m['content'] | trim"
    " + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
LLAMA_2 = (
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set first = '<<SYS>>\n' +"
    " messages[0]['content'] + '\n<</SYS>>\n\n' %}{% else %}{% set rest = messages %}{% set first = '' %}{% endif %}"
    "{% for m in rest %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + (first if loop.index0 == 0 else '')"
    " + m['content'] | trim + ' [/INST]' }}{% else %}{{ ' ' + m['content'] | trim + ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)
ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
PHI_3 = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
NO_END = (
    "{% for m in messages %}{{ ('USER: ' if m['role'] == 'user' else 'ASSISTANT: ') + m['content'] + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
EMPTY_THOUGHT = (
    "{% for m in messages %}{% if m['role'] == 'assistant' and loop.last %}"
    "{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' + m['content'] + '<|im_end|>\n' }}{% else %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
OPEN_THOUGHT = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% if enable_thinking is not defined or"
    " enable_thinking %}{{ '<think>\n' }}{% endif %}{% endif %}"
)

# name -> (tokenizer, template, special tokens, BOS, EOS)
_CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_LLAMA_3_TOKENS = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_GEMMA_TOKENS = ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>")
_PHI_TOKENS = ("<s>", "<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>")
FAMILIES: dict[str, tuple[str, str | None, tuple[str, ...], str | None, str]] = {
    "qwen": ("bytes", CHATML, _CHATML_TOKENS, None, "<|im_end|>"),
    "qwen-default-system": ("bytes", CHATML_DEFAULT_SYSTEM, _CHATML_TOKENS, None, "<|im_end|>"),
    "qwen-empty-thought": ("bytes", EMPTY_THOUGHT, _CHATML_TOKENS, None, "<|im_end|>"),
    "base-with-chatml": ("bytes", CHATML, _CHATML_TOKENS, None, "<|endoftext|>"),
    "llama-3": ("bytes", LLAMA_3, _LLAMA_3_TOKENS, "<|begin_of_text|>", "<|eot_id|>"),
    "gemma": ("blanks", GEMMA, _GEMMA_TOKENS, "<bos>", "<eos>"),
    "llama-2": ("pieces", LLAMA_2, ("<unk>", "<s>", "</s>"), "<s>", "</s>"),
    "llama-2-legacy": ("pieces-legacy", LLAMA_2, ("<unk>", "<s>", "</s>"), "<s>", "</s>"),
    "zephyr": ("pieces", ZEPHYR, ("<unk>", "<s>", "</s>"), "<s>", "</s>"),
    "zephyr-unigram": ("unigram", ZEPHYR, ("<unk>", "<s>", "</s>"), "<s>", "</s>"),
    "phi-3": ("pieces", PHI_3, ("<unk>", *_PHI_TOKENS), "<s>", "<|endoftext|>"),
    "zephyr-wild": ("pieces-wild", ZEPHYR, ("<unk>", "<s>", "</s>"), "<s>", "</s>"),
    "gemma-wild": ("blanks-wild", GEMMA, _GEMMA_TOKENS, "<bos>", "<eos>"),
    "no-end": ("bytes", NO_END, ("<s>", "</s>"), "<s>", "</s>"),
    "raw-bytes": ("bytes", None, ("<|endoftext|>",), None, "<|endoftext|>"),
    "raw-pieces": ("pieces", None, ("<unk>", "<s>", "</s>"), "<s>", "</s>"),
    "raw-pieces-wild": ("pieces-wild", None, ("<unk>", "<s>", "</s>"), "<s>", "</s>"),
    "raw-pieces-legacy": ("pieces-legacy", None, ("<unk>", "<s>", "</s>"), "<s>", "</s>"),
}
CHAT_FAMILIES = [name for name, family in FAMILIES.items() if family[1] is not None]
RAW_FAMILIES = [name for name, family in FAMILIES.items() if family[1] is None]


def tokenizer_of(family: str, **changes: object) -> PreTrainedTokenizerFast:
    """A fresh tokenizer of one family; `changes` replaces attributes such as chat_template."""
    kind, template, specials, bos, eos = FAMILIES[family]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained(kind, specials)),
        bos_token=bos,
        eos_token=eos,
        unk_token="<unk>" if "<unk>" in specials else None,
        name_or_path=f"tests/{family}",
    )
    tokenizer.chat_template = template
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    if template is None and bos is not None:
        _add_bos(tokenizer, bos)
    return tokenizer


@cache
def _trained(kind: str, specials: tuple[str, ...]) -> str:
    """The tokenizer's rules as JSON. Pieces stay within words, as sentencepiece's do, unless the kind is `-wild`."""
    tokenizer, trainer = _BUILDERS[kind.removesuffix("-wild")](specials)
    final = json.loads(tokenizer.to_str())
    if kind.startswith(("pieces", "blanks")) and not kind.endswith("-wild"):
        by_word = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([by_word, pre_tokenizers.Split("\n", "isolated")])
        tokenizer.normalizer = None
    tokenizer.train_from_iterator(CORPUS, trainer)
    rules = json.loads(tokenizer.to_str())
    rules["pre_tokenizer"], rules["normalizer"] = final["pre_tokenizer"], final["normalizer"]
    if not kind.startswith(("bytes", "unigram")):  # sentencepiece's byte tokens: in the vocabulary, but not special
        vocabulary = rules["model"]["vocab"]
        vocabulary.update({f"<0x{value:02X}>": len(vocabulary) + value for value in range(256)})
    tokenizer = Tokenizer.from_str(json.dumps(rules))
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in specials])
    return tokenizer.to_str()


def _bytes(specials: tuple[str, ...]) -> tuple[Tokenizer, trainers.Trainer]:
    """GPT-2, Llama-3, Qwen: byte-level BPE."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return tokenizer, trainers.BpeTrainer(
        vocab_size=700, special_tokens=list(specials), initial_alphabet=alphabet, show_progress=False
    )


def _piece_trainer(specials: tuple[str, ...]) -> trainers.BpeTrainer:
    return trainers.BpeTrainer(vocab_size=600, special_tokens=list(specials), show_progress=False)


def _pieces(specials: tuple[str, ...]) -> tuple[Tokenizer, trainers.Trainer]:
    """Mistral and newer Llama-2 conversions: sentencepiece BPE with one dummy blank before the first word."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    tokenizer.decoder = _piece_decoder(strip=True)
    return tokenizer, _piece_trainer(specials)


def _pieces_legacy(specials: tuple[str, ...]) -> tuple[Tokenizer, trainers.Trainer]:
    """Llama-2 as first converted: a dummy blank before every stretch between special tokens."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = _piece_decoder(strip=True)
    return tokenizer, _piece_trainer(specials)


def _blanks(specials: tuple[str, ...]) -> tuple[Tokenizer, trainers.Trainer]:
    """Gemma: sentencepiece BPE without a dummy blank."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = _piece_decoder(strip=False)
    return tokenizer, _piece_trainer(specials)


def _unigram(specials: tuple[str, ...]) -> tuple[Tokenizer, trainers.Trainer]:
    """A Unigram model with a dummy blank."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="first")
    letters = sorted({letter for text in CORPUS for letter in text} | set("0123456789<>|/[]éü—😀{}#*_"))
    return tokenizer, trainers.UnigramTrainer(
        vocab_size=500,
        special_tokens=list(specials),
        unk_token="<unk>",
        initial_alphabet=letters,
        show_progress=False,
    )


def _piece_decoder(*, strip: bool) -> decoders.Decoder:
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if strip else steps)


_BUILDERS = {
    "bytes": _bytes,
    "pieces": _pieces,
    "pieces-legacy": _pieces_legacy,
    "blanks": _blanks,
    "unigram": _unigram,
}


def _add_bos(tokenizer: PreTrainedTokenizerFast, bos: str) -> None:
    """What LlamaTokenizer does: BOS before every text that is tokenised on its own."""
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.bos_token_id)]
    )
