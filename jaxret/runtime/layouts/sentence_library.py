"""What sentence-transformers and PyLate write beside the modules: prompts, similarity, lengths, versions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jaxret.data.text import TextConfig
from jaxret.errors import InputError
from jaxret.files import write_json
from jaxret.runtime.layouts.body import Body
from jaxret.runtime.layouts.modules import Module, modules_in
from jaxret.runtime.layouts.records import field, record_in
from jaxret.runtime.layouts.settings import plain_text
from jaxret.runtime.model import Model

LIBRARY = "config_sentence_transformers.json"
TRANSFORMER = "sentence_bert_config.json"
OTHER_NAMES = tuple(f"sentence_{name}_config.json" for name in ("roberta", "distilbert", "camembert", "xlm-roberta"))
PASSAGES = ("document", "passage", "corpus")
UNKNOWN = ("processing_kwargs", "processor_kwargs", "tokenizer_args", "config_kwargs", "config_args")
_OLD, _SPARSE = "sentence_transformers.models.", "sentence_transformers.sparse_encoder."
_BASE = "sentence_transformers.base.modules."
OLD_CLASSES = {
    **{kind: f"{_OLD}{kind}" for kind in ("Transformer", "Pooling", "Dense", "Normalize")},
    "MLMTransformer": f"{_SPARSE}models.MLMTransformer",
    "SpladePooling": f"{_SPARSE}models.SpladePooling",
}
CLASSES = {
    **{kind: f"{_BASE}{kind.lower()}.{kind}" for kind in ("Transformer", "Dense", "Normalize")},
    "MLMTransformer": f"{_BASE}transformer.Transformer",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "SpladePooling": f"{_SPARSE}modules.splade_pooling.SpladePooling",
    "MultiVectorMask": "sentence_transformers.multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask",
}
FIRST_NEW = 6  # the version that spells modules and settings anew, and no longer strips texts


@dataclass(frozen=True)
class Library:
    """A folder with modules.json.

    Attributes:
      folder: where it is.
      modules: the steps.
      record: config_sentence_transformers.json.
      settings: sentence_bert_config.json, of the transformer.
    """

    folder: Path
    modules: list[Module]
    record: dict[str, Any]
    settings: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Library:
        """Reads JSON; InputError names file and field."""
        modules = modules_in(folder)
        names = [name for name in (TRANSFORMER, *OTHER_NAMES) if (modules[0].folder / name).is_file()]
        place = modules[0].folder / (names or [TRANSFORMER])[0]
        settings = record_in(place, optional=True)
        for name in UNKNOWN:
            if settings.get(name):
                raise InputError(
                    f"{place}: {name}", f"{settings[name]!r}", "These settings are not known; remove them."
                )
        if "message" in (settings.get("modality_config") or {}):
            raise InputError(f"{place}: modality_config", "texts go through a chat template", "That is not known.")
        return cls(folder, modules, record_in(folder / LIBRARY, optional=True), settings)

    @cached_property
    def body(self) -> Body:
        """The transformer and its tokeniser."""
        return Body.read(self.modules[0].folder)

    @property
    def place(self) -> Path:
        """config_sentence_transformers.json, for errors."""
        return self.folder / LIBRARY

    @property
    def old(self) -> bool:
        """Whether a version before 6 wrote it, which strips the texts."""
        versions = field(self.record, "__version__", dict, self.place, {})
        major = str(versions.get("sentence_transformers", "0")).partition(".")[0]
        return not major.isdecimal() or int(major) < FIRST_NEW

    @cached_property
    def prompts(self) -> tuple[str, str]:
        """What goes before queries and before passages.

        A folder with neither kind of prompt but a default one means it for both.
        """
        found = field(self.record, "prompts", dict, self.place, {})
        if wrong := [name for name, text in found.items() if not isinstance(text, str | None)]:
            raise InputError(f"{self.place}: prompts", f"{wrong[0]} is not a text", "Mend the file.")
        passage = next((name for name in PASSAGES if name in found), None)
        if passage is None and "query" not in found:
            default = found.get(self.record.get("default_prompt_name")) or ""
            return default, default
        return found.get("query") or "", (found[passage] or "") if passage else ""

    @property
    def prompted(self) -> bool:
        """Whether there is a prompt at all."""
        return any(self.prompts)

    def text(self, **more: Any) -> TextConfig:
        """How its texts become ids."""
        place = self.modules[0].folder / TRANSFORMER
        limit = field(self.settings, "max_seq_length", int, place, 0)
        lengths = {side: field(self.settings, f"{side}_length", int, place, limit) for side in ("query", "document")}
        found = {
            "query_prefix": self.prompts[0],
            "passage_prefix": self.prompts[1],
            "query_max_len": self.body.longest(lengths["query"]),
            "passage_max_len": self.body.longest(lengths["document"]),
            "strip": self.old,
            "lowercase": field(self.settings, "do_lower_case", bool, place, False),
        }
        return plain_text(self.body.longest(), **found | more)

    def similarity(self, default: str) -> str:
        """Of dense vectors: "dot" or "cosine"."""
        found = field(self.record, "similarity_fn_name", str, self.place, default)
        if found not in ("dot", "cosine"):
            raise InputError(f"{self.place}: similarity_fn_name", f"{found!r}", "Known are dot, cosine.")
        return found

    def origin(self, layout: str) -> dict[str, Any]:
        """What `Model.origin` keeps."""
        return self.body.origin(layout, library=self.record)


def write_library(
    folder: Path,
    model: Model,
    kind: str,
    record: dict[str, Any],
    settings: dict[str, Any] | None = None,
    old: bool | None = None,
) -> None:
    """Writes config_sentence_transformers.json and sentence_bert_config.json.

    Args:
      folder: of the checkpoint.
      model: the model.
      kind: the library's class, "SentenceTransformer" for example.
      record: fields of the first file that only this kind has.
      settings: fields of the second.
      old: spell it as versions before 6 do; by default if texts are stripped.
    """
    old = model.text.strip if old is None else old
    text, found = model.text, model.origin.get("library", {})
    versions = found.get("__version__") or {}
    major = str(versions.get("sentence_transformers", "0")).partition(".")[0]
    if not major.isdecimal() or (int(major) < FIRST_NEW) != old or not versions:
        versions = {"sentence_transformers": "5.0.0" if old else f"{FIRST_NEW}.0.0"}
    prompts = {name: prompt for name, prompt in (found.get("prompts") or {}).items() if name not in PASSAGES}
    prompts |= {"query": text.query_prefix, "document": text.passage_prefix}
    common = {"model_type": kind, "__version__": versions, "prompts": prompts}
    write_json(folder / LIBRARY, common | {"default_prompt_name": found.get("default_prompt_name")} | record)
    longest = max(text.query_max_len, text.passage_max_len)
    lengths: dict[str, Any] = {"max_seq_length": longest, "do_lower_case": text.lowercase}
    if not old:
        sides = {"query_length": text.query_max_len, "document_length": text.passage_max_len}
        lengths |= {name: length for name, length in sides.items() if length < longest}
        lengths |= _transformer_task(kind)
    write_json(folder / TRANSFORMER, lengths | (settings or {}))


def _transformer_task(kind: str) -> dict[str, Any]:
    task, output = ("feature-extraction", "last_hidden_state")
    if kind == "SparseEncoder":
        task, output = ("fill-mask", "logits")
    modality = {"text": {"method": "forward", "method_output_name": output}}
    return {"transformer_task": task, "modality_config": modality, "module_output_name": "token_embeddings"}
