"""What the Hub accepts at the top of a README.md: errors refuse the commit, warnings are said and let pass."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

LICENSES = frozenset(
    re.findall(
        r"\S+",
        """
        apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0
        bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc
        cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0
        cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0
        cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1
        eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c
        ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl openmdw-1.0 openrail++ osl-3.0 postgresql ofl-1.1 ncsa
        unlicense zlib pddl lgpl-lr deepfloyd-if-license fair-noncommercial-research-license llama2 llama3
        llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma unknown other
        """,
    )
)
PIPELINES = frozenset(
    re.findall(
        r"\S+",
        """
        text-classification token-classification table-question-answering question-answering
        zero-shot-classification translation summarization feature-extraction text-generation fill-mask
        sentence-similarity text-to-speech text-to-audio automatic-speech-recognition audio-to-audio
        audio-classification image-classification object-detection image-segmentation text-to-image image-to-text
        image-to-image text-ranking image-text-to-text any-to-any reinforcement-learning text-to-video other
        """,
    )
)
COLOURS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
SDKS = ("gradio", "docker", "static")
RELATIONS = ("adapter", "merge", "quantized", "finetune")
_REPO_ID = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?")
_EMOJI = re.compile("[\U0001f000-\U0001faff\u2190-\u2bff\ufe0f\u200d\u20e3\u3030\u303d\u3297\u3299]+")
_FRONT_MATTER = re.compile(r"\A(?:\ufeff)?[ \t]*---[ \t]*\r?\n(.*?)\r?\n?---[ \t]*(?:\r?\n|\Z)", re.DOTALL)


class _Loader(yaml.SafeLoader):
    """YAML 1.2 as far as cards need it: `no` is Norwegian, not false, and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.YAMLError(f"duplicated mapping key: {', '.join(twice)}")
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("true|True|TRUE|false|False|FALSE"), list("tTfF"))


def front_matter(content: str) -> dict[str, Any] | None:
    """The metadata of a card; None where there is none or it cannot be read."""
    matched = _FRONT_MATTER.match(content)
    try:
        data = yaml.load(matched[1], _Loader) if matched else None
    except yaml.YAMLError:
        return None
    return data if isinstance(data, dict) else None


def check_card(content: str, kind: str) -> tuple[list[str], list[str]]:
    """The errors and the warnings of a card of a model, dataset or Space."""
    matched = _FRONT_MATTER.match(content)
    if matched is None or not matched[1].strip():
        if kind == "space":
            return ["Missing configuration in README"], []
        return [], ["empty or missing yaml metadata in repo card"]
    try:
        data = yaml.load(matched[1], _Loader)
    except yaml.YAMLError as error:
        return [f"Invalid YAML in README.md: {error}"], []
    if not isinstance(data, dict):
        return ["YAML metadata must be a mapping"], []
    errors = [*_common(data)]
    errors += {"model": _model, "dataset": _dataset, "space": _space}[kind](data)
    return errors, list(_warnings(data))


def _common(data: dict[str, Any]) -> Iterator[str]:
    for number, value in enumerate(_as_list(data.get("license"))):
        if value not in LICENSES:
            yield f'"license[{number}]" with value {value!r} must be one of [{", ".join(sorted(LICENSES))}]'
    for value in _as_list(data.get("language")):
        if not isinstance(value, str) or not (
            re.fullmatch("[a-z]{2,3}", value) or value in ("multilingual", "code", "other")
        ):
            yield (
                f'"language" with value {value!r} is not valid. It must be an ISO 639-1, 639-2 or 639-3 code '
                '(two/three letters), or a special value like "code", "multilingual".'
            )
    yield from _strings(data, "tags")


def _warnings(data: dict[str, Any]) -> Iterator[str]:
    tag = data.get("pipeline_tag")
    if tag is not None and tag not in PIPELINES:
        yield f'The pipeline tag "{tag}" is not in the official list: {", ".join(sorted(PIPELINES))}'


def _model(data: dict[str, Any]) -> Iterator[str]:
    for value in _as_list(data.get("base_model")):
        if not isinstance(value, str) or not _REPO_ID.fullmatch(value):
            yield f'"base_model" with value {value!r} is not valid. Use a model id from https://hf.co/models.'
    if data.get("base_model_relation") not in (None, *RELATIONS):
        yield f'"base_model_relation" must be one of [{", ".join(RELATIONS)}]'
    yield from _ids(data, "datasets")
    for key in ("library_name", "pipeline_tag", "license_name", "license_link", "new_version"):
        if data.get(key) is not None and not isinstance(data[key], str):
            yield f'"{key}" must be a string'
    yield from _strings(data, "metrics")
    yield from _model_index(data)


def _model_index(data: dict[str, Any]) -> Iterator[str]:
    index = data.get("model-index")
    if index is None:
        return
    if not isinstance(index, list):
        yield '"model-index" must be an array'
        return
    for n, model in enumerate(index):
        at = f"model-index[{n}]"
        if not isinstance(model, dict) or not isinstance(model.get("name"), str):
            yield f'"{at}.name" is required'
        results = model.get("results") if isinstance(model, dict) else None
        if not isinstance(results, list):
            yield f'"{at}.results" must be an array'
            continue
        for m, result in enumerate(results):
            yield from _result(f"{at}.results[{m}]", result)


def _result(at: str, result: Any) -> Iterator[str]:
    """One result: its task, its data set, and at least one metric with a type and a value."""
    result = result if isinstance(result, dict) else {}
    for path in ("task.type", "dataset.type", "dataset.name"):
        first, second = path.split(".")
        part = result.get(first)
        if not isinstance(part, dict) or not isinstance(part.get(second), str) or not part[second]:
            yield f'"{at}.{path}" is required'
    metrics = result.get("metrics")
    if not isinstance(metrics, list) or not metrics:
        yield f'"{at}.metrics" must be an array of at least one metric'
        return
    for n, metric in enumerate(metrics):
        if not isinstance(metric, dict) or not isinstance(metric.get("type"), str):
            yield f'"{at}.metrics[{n}].type" is required'
        if not isinstance(metric, dict) or metric.get("value") is None:
            yield f'"{at}.metrics[{n}].value" is required'


def _dataset(data: dict[str, Any]) -> Iterator[str]:
    yield from _strings(data, "task_categories")
    yield from _strings(data, "size_categories")
    configs = data.get("configs")
    if configs is not None and not (
        isinstance(configs, list) and all(isinstance(one, dict) and "config_name" in one for one in configs)
    ):
        yield '"configs" must be an array of objects with a "config_name"'


def _space(data: dict[str, Any]) -> Iterator[str]:
    for key in ("colorFrom", "colorTo"):
        if data.get(key) not in (None, *COLOURS):
            yield f'"{key}" must be one of [{", ".join(COLOURS)}]'
    if data.get("sdk") not in SDKS:
        yield f'"sdk" must be one of [{", ".join(SDKS)}]'
    emoji = data.get("emoji")
    if emoji is not None and not (isinstance(emoji, str) and _EMOJI.fullmatch(emoji)):
        yield '"emoji" must be a valid emoji'
    if len(str(data.get("short_description", ""))) > 60:
        yield '"short_description" length must be less than or equal to 60 characters long'
    if not isinstance(data.get("pinned", False), bool):
        yield '"pinned" must be a boolean'
    yield from _ids(data, "models")
    yield from _ids(data, "datasets")


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _strings(data: dict[str, Any], key: str) -> Iterator[str]:
    value = data.get(key)
    if value is not None and not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
        yield f'"{key}" must be an array of strings'


def _ids(data: dict[str, Any], key: str) -> Iterator[str]:
    for number, value in enumerate(_as_list(data.get(key))):
        if not isinstance(value, str) or not _REPO_ID.fullmatch(value):
            yield f'"{key}[{number}]" with value {value!r} is not valid. Use an id from https://hf.co/{key}.'
