"""Text to search terms, by a named analyser, and where a query's terms stand in a text.

Texts are case-folded NFKC. The analysers are

* `words`: maximal runs of letters, marks, digits and underscores;
* `1-grams` to `9-grams`: of the characters of scripts that are written without spaces; words of other scripts stay
  whole (`words.py`);
* `letter-2-grams` to `letter-9-grams`: of the characters of every word, in any script;
* `snowball`: words without their endings, in the languages that Snowball knows (`snowball.py`);
* `amharic`: words in one spelling, without the affixes of nouns (`amharic.py`);
* `mecab`: lemmas of Japanese words (`japanese.py`);

and some of them together, joined with `+`, such as `words+amharic`: a text has the terms of each, which do not mix.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version

from jaxret.errors import InputError
from jaxret.search import amharic, japanese, snowball
from jaxret.search.words import clusters, letter_spans, ngram_spans, normalized, word_spans, words

CHOICES = "words, N-grams, letter-N-grams, snowball, amharic, mecab, or several joined with +"

# ISO 639 codes of languages whose words are not separated by spaces; `mul`: a corpus of several languages.
_UNSPACED = frozenset([
    "ja", "jpn", "zh", "zho", "chi", "cmn", "yue", "wuu", "nan", "lzh", "th", "tha", "lo", "lao", "km", "khm", "my",
    "mya", "bur", "mul",
])  # fmt: skip
# Where an analyser is better than words on the sets of docs/search.md.
_SNOWBALL = frozenset(["arabic", "english", "german", "indonesian", "russian", "spanish", "turkish"])
_AMHARIC = ("am", "amh")
_JAPANESE = ("ja", "jpn")
_CODE = re.compile(r"([a-z]{2,3})([-_][a-z0-9]+)*")
_GRAMS = re.compile("(letter-)?([1-9])-grams")


@dataclass(frozen=True)
class _Part:
    """One analyser: `spans` gives where the terms of a normalised text stand, `terms` themselves, in the same order."""

    name: str
    spans: Callable[[str], Iterable[tuple[int, int]]] = field(compare=False)
    terms: Callable[[str], list[str]] = field(compare=False)
    versions: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Analyzer:
    """Called with a text, gives its terms, with repetitions.

    Attributes:
      parts: the analysers whose terms it has; those of the second begin with +, of the third with ++, and so on.
    """

    parts: tuple[_Part, ...]

    @property
    def name(self) -> str:
        """The name that `analyzer` knows it by."""
        return "+".join(part.name for part in self.parts)

    @property
    def versions(self) -> dict[str, str]:
        """The packages and rules that its terms depend on."""
        return {name: number for part in self.parts for name, number in part.versions}

    def __call__(self, text: str) -> list[str]:
        """The terms of a text, in order."""
        text = normalized(text)
        terms = self.parts[0].terms(text)
        for number, part in enumerate(self.parts[1:], 1):
            terms += ["+" * number + term for term in part.terms(text)]
        return terms

    def located(self, text: str) -> Iterator[tuple[int, int, str]]:
        """Begin, end and term of each term of a normalised text."""
        for number, part in enumerate(self.parts):
            for (begin, end), term in zip(part.spans(text), part.terms(text), strict=True):
                yield begin, end, "+" * number + term


def analyzer(language: str, name: str | None = None) -> Analyzer:
    """An analyser, by default the one that is measured to suit the language.

    Args:
      language: an ISO 639 code, with or without script and region (`ja`, `jpn`, `zh-Hans`, `jpn_Jpan`, `pt-BR`).
      name: see this file's head. By default `2-grams` for languages written without spaces and for `mul` (mixed
        corpora), `words+amharic` for Amharic, `snowball` for languages in which it is measured to be better, else
        `words`.

    Raises:
      InputError: `language` does not look like such a code, the name is unknown or not for the language, or a package
        that it needs is missing.
    """
    match = _CODE.fullmatch(language.lower())
    if match is None:
        fix = "Give an ISO 639 code such as ja, en, am or zh-Hans, or mul for several languages."
        raise InputError("language", f"{language!r} is not a language code", fix)
    names = (name or _default(match[1])).split("+")
    if len(set(names)) < len(names):
        raise InputError("analyzer", f"{name!r} names one twice", "Name each once.")
    return Analyzer(tuple(_part(part, match[1]) for part in names))


def unspaced_or_words(language: str) -> str:
    """The name of the analyser that an index has whose settings name none: they were the only ones once."""
    return "2-grams" if re.split("[-_]", language.lower())[0] in _UNSPACED else "words"


def _default(code: str) -> str:
    if code in _AMHARIC:
        return "words+amharic"
    return "snowball" if snowball.ALGORITHMS.get(code) in _SNOWBALL else unspaced_or_words(code)


def _part(name: str, code: str) -> _Part:
    if name == "words":
        return _Part(name, word_spans, words)
    if name == "snowball":
        stems = snowball.stems_of(code)
        versions = (*_versions(snowball.PACKAGES), ("algorithm", snowball.ALGORITHMS[code]))
        return _Part(name, word_spans, lambda text: stems(words(text)), versions)
    if name == "amharic":
        _check_language(name, code, _AMHARIC)
        stem = amharic.amharic_stem
        return _Part(name, word_spans, lambda text: [*map(stem, words(text))], (("amharic rules", amharic.RULES),))
    if name == "mecab":
        _check_language(name, code, _JAPANESE)
        japanese.mecab()
        return _Part(name, japanese.japanese_spans, japanese.japanese_lemmas, _versions(japanese.PACKAGES))
    match = _GRAMS.fullmatch(name)
    if match is None or (match[1] and match[2] == "1"):
        raise InputError("analyzer", f"unknown {name!r}", f"Choose from {CHOICES} (N from 1 to 9; letter- from 2).")
    spans = partial(letter_spans if match[1] else ngram_spans, n=int(match[2]))
    return _Part(name, spans, lambda text: [text[begin:end] for begin, end in spans(text)])


def _check_language(name: str, code: str, codes: tuple[str, ...]) -> None:
    if code not in codes:
        raise InputError("analyzer", f"{name} is not for {code!r}", f"Give --language {codes[0]}, or another analyser.")


def _versions(packages: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((package, version(package)) for package in packages)


def matched_spans(analyzer: Analyzer, query: str, text: str) -> list[tuple[int, int]]:
    """Spans `[begin, end)` of characters of `text` that hold a term of `query`; sorted, touching ones merged.

    The spans are of the text as given: characters that normalisation joins or splits (half-width kana with a voicing
    mark, ligatures) are marked whole.
    """
    terms = set(analyzer(query))
    characters, begins, ends = [], [], []
    for begin, end in clusters(text):
        for character in normalized(text[begin:end]):
            characters.append(character)
            begins.append(begin)
            ends.append(end)
    merged: list[tuple[int, int]] = []
    for first, last, term in sorted(analyzer.located("".join(characters))):
        if term in terms:
            begin, end = begins[first], ends[last - 1]
            if merged and begin <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(end, merged[-1][1])
            else:
                merged.append((begin, end))
    return merged
