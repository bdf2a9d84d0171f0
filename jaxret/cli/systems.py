"""Systems as `jaxret mine`, `score` and `rerank` are told of them: bm25, a run file, a model or an index."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jaxret.errors import InputError

if TYPE_CHECKING:
    from jaxret.data.corpus import Corpus
    from jaxret.search.rankers import Ranker

HELP = "bm25, a run file, what jaxret index made, or a model (as --model elsewhere); of the last two, @MODE may follow."
TEACHERS = HELP.replace("or a model (as", "a cross-encoder, or a retriever (as")
MODES = ("dense", "lexical", "multi_vector")


@dataclass(frozen=True)
class System:
    """A system by its name, checked but not loaded.

    Attributes:
      kind: "bm25", "run", "index", "model" or "cross_encoder".
      name: a path, or "hf:org/name".
      mode: of an index or a retriever.
    """

    kind: str
    name: str
    mode: str = ""

    @classmethod
    def named(cls, option: str, text: str, mode: str | None = None) -> System:
        """What `text` names; `mode` is that of a model named without @MODE, by default the model's first.

        Raises:
          InputError: no such file, folder or model; the model lacks the mode.
        """
        from jaxret.runtime.hub import local_folder
        from jaxret.runtime.layouts import describe
        from jaxret.runtime.layouts.cross_encoders import describe_cross_encoder, is_cross_encoder
        from jaxret.search.index import DESCRIPTION, read_description

        name, _, suffix = text.rpartition("@")
        if suffix not in MODES:
            name, suffix = text, mode or ""
        if name == "bm25":
            return cls("bm25", name)
        path = Path(name)
        if path.is_file() or path.with_name(f"{path.name}.gz").is_file():
            return cls("run", name)
        index = (path / DESCRIPTION).is_file()
        if not index and is_cross_encoder(local_folder(name)):
            if name != text:
                raise InputError(option, f"{name} is a cross-encoder, without modes", f"Leave out @{suffix}.")
            describe_cross_encoder(name)
            return cls("cross_encoder", name)
        heads = describe(str(read_description(path).model) if index else name).model.config.heads
        if suffix and suffix not in heads:
            raise InputError(option, f"{name} has no {suffix!r}", f"Choose one of {', '.join(heads)}.")
        return cls("index" if index else "model", name, suffix or heads[0])

    def __str__(self) -> str:
        return f"{self.name}@{self.mode}" if self.mode else self.name

    def opened(
        self,
        corpus: Corpus | None,
        language: str,
        mesh_shape: str,
        store: Path | None = None,
        missing: str = "none",
        analyzer: str | None = None,
    ) -> Ranker:
        """The system, loaded.

        Args:
          corpus: what it ranks; None for one that only scores pairs.
          language, analyzer: of BM25.
          mesh_shape: of the devices.
          store: where a model encodes the corpus that it ranks, None for one that only scores pairs; where BM25 keeps
            its index, None for memory.
          missing: see `RunRanker`.
        """
        from jaxret.cli.encode import cross_encoder, encode_into, text_encoder
        from jaxret.search.index import VECTORS, read_description
        from jaxret.search.rankers import BM25Ranker, ModelRanker, RunRanker
        from jaxret.search.reranking import CrossEncoderRanker

        if self.kind == "run":
            return RunRanker(self.name, missing)
        if self.kind == "bm25":
            if corpus is None:
                raise InputError("bm25", "has no corpus", "Give --data.")
            return BM25Ranker(corpus, language, store, analyzer)
        if self.kind == "cross_encoder":
            return CrossEncoderRanker(cross_encoder(self.name, mesh_shape))
        if self.kind == "index":
            made = read_description(self.name)
            encoder, _ = text_encoder(made.model, made.step, mesh_shape)
            return ModelRanker(encoder, self.mode, corpus, Path(self.name) / VECTORS)
        encoder, _ = text_encoder(Path(self.name), None, mesh_shape)
        if store is None or corpus is None:
            return ModelRanker(encoder, self.mode)
        encode_into(encoder, corpus, store)
        return ModelRanker(encoder, self.mode, corpus, store)
