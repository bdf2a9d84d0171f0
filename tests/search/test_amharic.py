from __future__ import annotations

import pytest

from jaxret.search.amharic import amharic_stem


@pytest.mark.parametrize(
    ("words", "stem"),
    [
        ("ቤት ቤቶች ቤቶችን ቤቱ ቤቱን ቤታችን ቤታቸው ቤቴ ቤትና ቤቷ", "ቤት"),  # house(s), the, our, their, my, and, her
        ("መንግስት የመንግሥት በመንግስታቸው ከመንግሥቱም", "መንግስት"),
        ("ኢትዮጵያ የኢትዮጵያ ከኢትዮጵያና ወደኢትዮጵያ ኢትዮጵያውያን ስለኢትዮጵያም", "ኢትዮጵያ"),
        ("ተማሪ ተማሪዎች ተማሪው የተማሪዎቻቸው ተማሪዋን", "ተማሪ"),
        ("ሀገር ሃገር ሐገር ሓገር ኃገር ኀገር ሀገሮች", "ሀገር"),
        ("ሠራ ሰራ", "ሰራ"),
        ("ፀሐይ ጸሀይ ፀሃይ", "ጸሀይ"),
        ("ዓመት አመት ዐመት", "አመት"),
        ("ጐንደር ጎንደር", "ጎንደር"),
        ("ሟች ሙዋች ሙአች", "ሟች"),
        ("ውስጥ ዉስጥ", "ውስጥ"),
    ],
)
def test_forms_of_a_word(words, stem):
    assert {word: amharic_stem(word) for word in words.split()} == dict.fromkeys(words.split(), stem)


@pytest.mark.parametrize("word", ["ነው", "ልጅ", "ሰው", "ለውጥ", "የት", "ትምህርት", "ን"])
def test_enough_of_a_word_remains(word):
    assert amharic_stem(word) == word


@pytest.mark.parametrize("word", ["covid19", "covid19ን", "2015", "፲፪", "ቤት1", "日本", ""])
def test_other_words_stay(word):
    assert amharic_stem(word) == word
