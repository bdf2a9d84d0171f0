"""Where training queries come from: a split of a BEIR folder, or a file of groups."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jaxret.data.beir import BeirFolder
from jaxret.data.group_tables import group_tables
from jaxret.data.groups import read_groups, split_groups
from jaxret.data.tables import Content
from jaxret.errors import InputError
from jaxret.files import existing, sha256


@dataclass(frozen=True)
class Source:
    """Training queries: a split of a BEIR folder.

    Attributes:
      folder: its path; `negatives.tsv` there has the queries' negatives.
      split: its name.
      rate: its share in a mixture relative to the other sources.
      language: a number for the language of its queries.
    """

    folder: str | Path
    split: str = "train"
    rate: float = 1.0
    language: int = 0

    def __post_init__(self):
        check_numbers(f"source {self.folder}", self.rate, self.language)

    @property
    def name(self) -> str:
        """Folder and split."""
        return f"{Path(self.folder).resolve().name}_{self.split}"

    @cached_property
    def fingerprint(self) -> str:
        """Any change of the folder changes it; InputError where there is no folder."""
        return f"{self.split}-{self._opened.fingerprint}"

    def content(self) -> Content:
        """Its groups as tables; InputError where something in the folder is wrong."""
        return group_tables(split_groups(self._opened.validated(self.split), self.split))

    def unscored(self, place: str) -> InputError:
        """What is wrong where scores are missing, in the group at a place."""
        fix = "Make a file with `jaxret score` and train on it as a GroupFile."
        return InputError(self.folder, "a BEIR folder has no teacher's scores", fix)

    @cached_property
    def _opened(self) -> BeirFolder:
        return BeirFolder(self.folder)


@dataclass(frozen=True)
class GroupFile:
    """Training queries: the groups of a ColBERT or FlagEmbedding file, scored by a teacher or not.

    Attributes:
      path: the file of JSON lines, plain or `.gz`; see `groups.read_groups`.
      folder: the BEIR folder whose ids a ColBERT file names; "" for none.
      rate: its share in a mixture relative to the other sources.
      language: a number for the language of its queries.
    """

    path: str | Path
    folder: str | Path = ""
    rate: float = 1.0
    language: int = 0

    def __post_init__(self):
        check_numbers(f"source {self.path}", self.rate, self.language)

    @property
    def name(self) -> str:
        """The file's."""
        return Path(self.path).name

    @cached_property
    def fingerprint(self) -> str:
        """Any change of the file or the folder changes it; InputError where one is missing."""
        named = self._opened.fingerprint if self._opened else ""
        return "groups-" + hashlib.sha256(f"{sha256(existing(self.path))} {named}".encode()).hexdigest()

    def content(self) -> Content:
        """Its groups as tables; InputError where something in the file is wrong."""
        return group_tables(read_groups(self.path, self._opened))

    def unscored(self, place: str) -> InputError:
        """As `Source.unscored`."""
        return InputError(place, "a passage has no teacher's score", "Score the file with `jaxret score`.")

    @cached_property
    def _opened(self) -> BeirFolder | None:
        return BeirFolder(self.folder) if self.folder else None


def check_numbers(place: str, rate: float, language: int) -> None:
    """InputError where a source's rate or language is out of range."""
    if not 0 < rate < float("inf"):
        raise InputError(place, f"rate {rate} is not positive", "Give a number above 0.")
    if not 0 <= language < 2**31:
        raise InputError(place, f"language {language} is out of range", "Count languages from 0.")
