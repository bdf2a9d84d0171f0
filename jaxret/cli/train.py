"""`jaxret train`: the one place where gin configures a run."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Annotated

import typer

from jaxret.cli.options import Distributed, DryRun
from jaxret.errors import InputError

PREFIX = "--gin."
# What sentence-transformers, FlagEmbedding, Tevatron and transformers call settings of `train`.
KNOWN_AS = {
    "mini_batch_size": "chunk_rows",
    "sub_batch_size": "chunk_rows",
    "gc_q_chunk_size": "chunk_rows",
    "gc_p_chunk_size": "chunk_rows",
    "per_device_batch_size": "global_batch_size",
    "per_device_train_batch_size": "global_batch_size",
    "gradient_checkpointing": "remat",
    "max_steps": "steps",
    "save_steps": "save_interval_steps",
    "eval_steps": "evaluate_interval_steps",
    "logging_steps": "log_period",
    "save_total_limit": "keep",
    "metric_for_best_model": "best_metric",
    "model_name_or_path": "pretrained",
    "output_dir": "workdir",
}


def train(
    gin_file: Annotated[list[str], typer.Option("--gin_file", help="A gin file; may be given several times.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="--gin.NAME=VALUE, e.g. --gin.train.steps=100.")] = None,
    distributed: Distributed = False,
    dry_run: DryRun = False,
) -> None:
    """Trains a retriever as a gin file says; --gin.NAME=VALUE overrides it, e.g. --gin.train.steps=100.

    The same workdir continues from its latest checkpoint. SIGTERM and ctrl-C let the run finish its step and save.
    """
    import gin

    from jaxret.runtime.compile_cache import use_compile_cache
    from jaxret.runtime.heap import compute_in_turn
    from jaxret.runtime.processes import one_job
    from jaxret.train import loop

    logging.basicConfig(format="%(message)s")
    logging.getLogger("jaxret.data").setLevel(logging.INFO)  # the shapes of the batches
    use_compile_cache()
    compute_in_turn()
    with one_job(distributed):
        parse_gin(gin_file, bindings(overrides or []))
        configured = gin.get_configurable(loop.train)
        facts = {"gin_files": gin_file, "gin_overrides": overrides or [], "gin": gin.config_str()}
        try:
            if dry_run:
                configured(facts=facts, dry_run=True)
                print(gin.config_str())
            else:
                print(configured(facts=facts))
        except TypeError as error:
            if "missing" in str(error) and "argument" in str(error):
                problem = f"a setting is not bound: {error}".split("\n")[0]
                raise InputError(", ".join(gin_file), problem, "Bind it.") from None
            raise


def bindings(arguments: list[str]) -> list[str]:
    """`--gin.train.steps=100` as the binding `train.steps = 100`."""
    for argument in arguments:
        if not argument.startswith(PREFIX) or "=" not in argument:
            raise InputError(
                "command line", f"unknown argument {argument!r}", "Overrides look like --gin.train.steps=100."
            )
    return [argument.removeprefix(PREFIX) for argument in arguments]


def parse_gin(files: list[str], overrides: list[str]) -> None:
    """Reads gin files and overrides; a mistake in them is one clear line.

    Raises:
      InputError: a missing file, a name that nothing has, or broken syntax.
    """
    import gin

    for file in files:
        if not Path(file).is_file():
            raise InputError(file, "no such gin file", "Check --gin_file.")
    try:
        gin.parse_config_files_and_bindings(files, overrides)
    except (ValueError, SyntaxError, ImportError, NameError, AttributeError, OSError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        place = next((line for line in lines if line.startswith("In ")), f"in {', '.join(files)}")
        problem = f"{lines[0].rstrip('.')} ({place[0].lower()}{place[1:]})"
        raise InputError("gin", problem, _fix(problem)) from None


def _fix(problem: str) -> str:
    """What to do about a binding; the name here of a setting that other libraries call otherwise."""
    found = re.search(r"'(?:\w+\.)*train' doesn't have a parameter named '(\w+)'", problem)
    if not found or found[1] not in KNOWN_AS:
        return "Check the spelling of the name and the value."
    ours = KNOWN_AS[found[1]]
    return f"Here it is train.{ours}{', of all devices together' if ours == 'global_batch_size' else ''}."
