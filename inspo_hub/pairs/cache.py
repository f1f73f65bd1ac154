"""A source's rows -> its TokenTable, through `datasets.map` under a key made of content alone."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from inspo_hub.errors import DataError
from inspo_hub.pairs.formats import RowProblem, read_example
from inspo_hub.pairs.load import cache_folder, content_key, disk_is_full, full_disk, load_source, quiet_progress
from inspo_hub.pairs.store import TokenTable
from inspo_hub.pairs.template import tokenizer_name
from inspo_hub.pairs.tokenise import PairTokeniser, Texts, prompt_hashes, renders_date, text_hash
from inspo_hub.pairs.types import PairSource

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

# Raised whenever the same rows and tokenizer would give other ids: what an older version cached is then not read.
TOKENISATION_VERSION = 1
_BATCH_ROWS = 256


def tokenised_table(source: PairSource, tokeniser: PairTokeniser, *, num_proc: int | None = None) -> TokenTable:
    """The source's rows as token ids; tokenised once, then read from the disk cache of `datasets`."""
    content = content_key(source)
    rows = load_source(source, content)
    _check_format(rows, source, tokeniser)
    key = cache_key(content, tokeniser)
    cache_folder().mkdir(parents=True, exist_ok=True)
    try:
        with quiet_progress():
            tokens = rows.map(
                tokenise_rows,
                with_indices=True,
                batched=True,
                batch_size=_BATCH_ROWS,
                fn_kwargs={"tokeniser": tokeniser},
                remove_columns=rows.column_names,
                num_proc=num_proc if num_proc and len(rows) > num_proc * _BATCH_ROWS else None,
                cache_file_name=str(cache_folder() / f"tokens-{key}.arrow"),
                new_fingerprint=key,
                desc=f"Tokenising {source.name}",
            )
    except OSError as error:
        if disk_is_full(error):
            raise full_disk(source) from error
        raise
    return TokenTable.of(source.name, tokens.data.table)


def _schema() -> pa.Schema:
    ids = pa.list_(pa.int32())
    columns = {"prompt": ids, "chosen": ids, "rejected": ids, "row": pa.int64()}
    columns |= {"problem": pa.string(), "detail": pa.string()}
    hashes = {name: pa.uint64() for name in ("prompt_hash", "near_hash", "chosen_hash", "rejected_hash")}
    return pa.schema({**columns, "merged": pa.int8(), **hashes}.items())


def _check_format(rows: Dataset, source: PairSource, tokeniser: PairTokeniser) -> None:
    conversational = [name for name in ("prompt", "chosen", "rejected") if _is_list(rows, name)]
    if conversational and not tokeniser.chat:
        raise DataError(
            f"column {conversational[0]!r} holds messages, and the tokenizer has no chat template to render them",
            where=f"{source.name} with {tokenizer_name(tokeniser.tokenizer)}",
            expected="a tokenizer with a chat template",
            fix="use an instruction-tuned model or give its tokenizer a chat template (and not text_format: raw)",
        )
    if "system" in rows.column_names and not tokeniser.chat:
        raise DataError(
            "a system column, and no chat template to render system messages",
            where=f"{source.name} with {tokenizer_name(tokeniser.tokenizer)}",
            fix="leave the column out of columns, or use a tokenizer with a chat template",
        )


def _is_list(rows: Dataset, name: str) -> bool:
    return name in rows.column_names and not isinstance(rows[0][name], str | None)


def tokenise_rows(batch: dict[str, list[Any]], indices: Sequence[int], *, tokeniser: PairTokeniser) -> pa.Table:
    """One batch of rows with our column names -> columns of ids, problems and hashes. Pure: no other input."""
    size = len(indices)
    out: dict[str, list[Any]] = {name: [[] for _ in range(size)] for name in ("prompt", "chosen", "rejected")}
    out["problem"], out["detail"] = [None] * size, [None] * size
    out["row"], out["merged"] = list(indices), [0] * size
    for name in ("prompt_hash", "near_hash", "chosen_hash", "rejected_hash"):
        out[name] = [0] * size
    texts: dict[int, Texts] = {}
    for index in range(size):
        try:
            example = read_example({name: values[index] for name, values in batch.items()}, chat=tokeniser.chat)
            out["prompt_hash"][index], out["near_hash"][index] = prompt_hashes(example)
            text = tokeniser.texts(example, _row_kwargs(batch, index))
            if text.chosen == text.rejected:
                raise RowProblem("identical")
            out["chosen_hash"][index], out["rejected_hash"][index] = text_hash(text.chosen), text_hash(text.rejected)
            texts[index] = text
        except RowProblem as problem:
            out["problem"][index], out["detail"][index] = problem.kind, problem.detail
    for index, tokens in zip(texts, tokeniser.tokenise(list(texts.values())), strict=True):
        if isinstance(tokens, RowProblem):
            out["problem"][index], out["detail"][index] = tokens.kind, tokens.detail
        elif tokens.chosen == tokens.rejected:
            out["problem"][index] = "identical"
        else:
            out["prompt"][index], out["chosen"][index] = tokens.prompt, tokens.chosen
            out["rejected"][index], out["merged"][index] = tokens.rejected, tokens.merged
    return pa.table(out, schema=_schema())


def _row_kwargs(batch: dict[str, list[Any]], index: int) -> dict[str, Any]:
    """What a row hands to its template: `chat_template_kwargs` and `tools` (objects, or their JSON)."""
    kwargs: dict[str, Any] = {}
    for name in ("chat_template_kwargs", "tools"):
        value = batch[name][index] if name in batch else None
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except json.JSONDecodeError as error:
                raise RowProblem(f"bad_{name}", str(error)) from error
        if value:
            kwargs.update({k: v for k, v in value.items() if v is not None} if name != "tools" else {"tools": value})
    return kwargs


def cache_key(content: str, tokeniser: PairTokeniser) -> str:
    """sha256 of everything that the ids depend on: content, how they are read, tokenizer, template, version."""
    tokenizer = tokeniser.tokenizer
    parts = {
        "version": TOKENISATION_VERSION,
        "content": content,
        "tokenizer": tokenizer_key(tokenizer),
        "chat": tokeniser.chat,
        "kwargs": tokeniser.template_kwargs,
        "today": str(datetime.date.today()) if renders_date(tokenizer) else "",
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:40]


def tokenizer_key(tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 of what the tokenizer does to text; padding and truncation settings do not take part."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        rules = json.loads(backend.to_str())
        rules.pop("truncation", None), rules.pop("padding", None)
    else:
        rules = {"vocabulary": tokenizer.get_vocab(), "kind": type(tokenizer).__name__}
    parts = [rules, getattr(tokenizer, "chat_template", None), tokenizer.special_tokens_map]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
