"""The `jaxret` command. Each command's module imports what it needs when it runs, so `--help` is quick."""

from __future__ import annotations

import errno
import sys

import typer

from jaxret.cli import convert, encode, evaluate, fuse, index, merge, mine, report, rerank, score, search, train, vocab
from jaxret.errors import InputError
from jaxret.runtime.heap import keep_heap, one_arena

app = typer.Typer(
    name="jaxret",
    help="Train, search and evaluate multilingual text retrievers in JAX.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("vocab")(vocab.vocab)
app.command("train", context_settings={"ignore_unknown_options": True})(train.train)
app.command("convert")(convert.convert)
app.command("merge")(merge.merge)
app.command("mine")(mine.mine)
app.command("score")(score.score)
app.command("rerank")(rerank.rerank)
app.command("fuse")(fuse.fuse)
app.command("encode")(encode.encode)
app.command("index")(index.index)
app.command("search")(search.search)
app.command("evaluate")(evaluate.evaluate)
app.command("report")(report.report)


def main() -> None:
    """Runs the command; bad input and a full disk end in one line on standard error and exit code 2."""
    try:
        app()
    except InputError as error:
        print(f"jaxret: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(f"jaxret: {error.filename}: no space left; what was complete before still is", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("jaxret: interrupted; the same command continues where it can", file=sys.stderr)
        sys.exit(130)


def program() -> None:
    """The command in a process of its own, which training may begin again."""
    if sys.argv[1:2] == ["train"]:
        keep_heap()
    else:
        one_arena()
    main()
