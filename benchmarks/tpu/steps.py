"""The training steps that are compiled: what each is, how large its batch is, and the program."""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh

from jaxret.data.text import TextConfig
from jaxret.data.tokenizer import Tokenizer
from jaxret.nn.presets import preset
from jaxret.nn.retriever import RetrieverConfig
from jaxret.runtime.mesh import batch_sharding, device_mesh
from jaxret.runtime.model import Model
from jaxret.train.objectives.contrastive import contrastive
from jaxret.train.objectives.distillation import distill
from jaxret.train.objectives.represented import objective_over
from jaxret.train.objectives.retromae import retromae
from jaxret.train.objectives.tiled import tiled_contrast
from jaxret.train.optimizers import adamw
from jaxret.train.program import step_program

HEADS = ("dense", "lexical", "multi_vector")
EVEN = dict.fromkeys(HEADS, 1.0)
MESHES = {"v5e:4x4": (1, 16, 1), "v5e:16x16": (16, 16, 1), "v5p:4x4x4": (4, 16, 1)}
QUERY, PASSAGE, WAYS = 128, 256, 8
TOKEN_WIDTH = 128
COLUMNS = 64  # of a tile of scores
MOST = 80  # masked tokens that RetroMAE's encoder predicts


@dataclass(frozen=True)
class Step:
    """One program.

    Attributes:
      kind: "dense" InfoNCE, "three heads" (InfoNCE in tiles), "distillation" (8 ways) or "RetroMAE".
      encoder: a preset.
      topology: of the chips.
      rows: of a batch for each chip: pairs, queries with their ways, or texts.
      dropout: of the encoder.
      mesh: data, fsdp, tensor; by default one of `MESHES`.
      unrolled: the layers are compiled one by one.
    """

    kind: str
    encoder: str
    topology: str
    rows: int
    dropout: float = 0.0
    mesh: tuple[int, int, int] | None = None
    unrolled: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the mesh."""
        return self.mesh or MESHES[self.topology]

    @property
    def chips(self) -> int:
        """Of the topology."""
        return math.prod(self.shape)

    @property
    def ways(self) -> int:
        """Passages of a query."""
        return WAYS if self.kind == "distillation" else 1

    @property
    def name(self) -> str:
        """All of it in one word."""
        words = [self.kind, self.encoder, self.topology, *map(str, self.shape), str(self.rows), str(self.dropout)]
        return "-".join(words + ["unrolled"] * self.unrolled).replace(" ", "_").replace(":", "_")

    def batch(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shapes and dtypes of a global batch."""
        rows = self.rows * self.chips
        if self.kind == "RetroMAE":
            texts = dict.fromkeys(("tokens", "encoder_ids", "encoder_where"), ((rows, PASSAGE), jnp.int32))
            return texts | {"decoder_seed": ((rows,), jnp.int32)}
        found = {"query": (rows, QUERY), "passage": (rows, self.ways, PASSAGE), "passage_key": (rows, self.ways)}
        scores = {"teacher_scores": ((rows, self.ways), jnp.float32)} if self.ways > 1 else {}
        return {name: (shape, jnp.int32) for name, shape in found.items()} | scores

    def model(self) -> Model:
        """The model, its layers rematerialised but for their products."""
        heads = HEADS if self.kind in ("three heads", "distillation") else ("dense",)
        encoder = dataclasses.replace(preset(self.encoder), dropout=self.dropout)
        config = RetrieverConfig(encoder, heads=heads, token_layers=(TOKEN_WIDTH,), pooling="mean")
        text = TextConfig(query_max_len=QUERY, query_expansion=False, query_marker="", passage_marker="")
        return Model(config, text, Tokenizer(b""), "bfloat16", "short", remat="products", unrolled=self.unrolled)

    def objective(self) -> Any:
        """What is minimised."""
        if self.kind == "dense":
            return functools.partial(contrastive, temperature={"dense": 0.05}, weight={"dense": 1.0})
        if self.kind == "three heads":
            return objective_over([functools.partial(tiled_contrast, temperature=EVEN, weight=EVEN, columns=COLUMNS)])
        if self.kind == "distillation":
            return objective_over([functools.partial(distill, weight=EVEN)])
        return retromae(most=MOST)

    def compiled(self) -> jax.stages.Compiled:
        """The step with AdamW, compiled for the topology."""
        devices = topologies.get_topology_desc(platform="tpu", topology_name=self.topology).devices
        return self.compiled_on(device_mesh(self.shape, devices), self.model())

    def compiled_on(self, mesh: Mesh, model: Model) -> jax.stages.Compiled:
        """The same for a mesh of that shape, perhaps with another implementation."""
        step, abstract = step_program(model, self.objective(), adamw(1000, learning_rate=1e-4), 0, mesh)
        spread = batch_sharding(mesh)
        batch = {
            name: jax.ShapeDtypeStruct(shape, kind, sharding=spread) for name, (shape, kind) in self.batch().items()
        }
        return step.lower(abstract, batch).compile()


ROWS = {
    "bert-base-uncased": {"dense": 64, "three heads": 32, "distillation": 8, "RetroMAE": 64},
    "xlm-roberta-large": {"dense": 16, "three heads": 8, "distillation": 2, "RetroMAE": 16},
}
STEPS = [
    Step(kind, encoder, topology, rows)
    for encoder, kinds in ROWS.items()
    for topology in MESHES
    for kind, rows in kinds.items()
] + [
    Step("dense", "bert-base-uncased", "v5e:4x4", 64, mesh=(16, 1, 1)),
    Step("dense", "bert-base-uncased", "v5e:4x4", 64, dropout=0.1),
    Step("dense", "bert-base-uncased", "v5e:4x4", 64, unrolled=True),
]
