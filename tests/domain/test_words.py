import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.words import word_texts, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("? - \n👋 …", []),
        ("The quick, BROWN fox.", ["the", "quick", "brown", "fox"]),
        ("don't foo_bar v1.2", ["don", "t", "foo", "bar", "v1", "2"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("École cafe\u0301 CAFÉ", ["ecole", "cafe", "cafe"]),
        ("ὈΔΥΣΣΕΎΣ οδυσσευς", ["οδυσσευσ", "οδυσσευσ"]),
        ("Ёлки İstanbul", ["елки", "istanbul"]),
        ("مُحَمَّد שָׁלוֹם", ["محمد", "שלום"]),
        ("我想学习", ["我", "想", "学", "习"]),
        ("ひらが な", ["ひ", "ら", "か\u3099", "な"]),
        ("สวัสดี", ["ส", "วั", "ส", "ดี"]),
        ("हिन्दी", ["हिन्दी"]),
        ("abc中文def", ["abc", "中", "文", "def"]),
        ("a\x00b\u2028c", ["a", "b", "c"]),
    ],
)
def test_words_of_texts(text: str, expected: list[str]) -> None:
    assert word_texts(text) == expected


@given(st.text())
def test_words_stand_in_their_text_and_are_compared_alike(text: str) -> None:
    found = list(words(text))
    assert [word.text for word in found] == word_texts(text)
    assert [place for word in found for place in (word.start, word.end)] == sorted(
        place for word in found for place in (word.start, word.end)
    )
    for word in found:
        assert word_texts(text[word.start : word.end]) == [word.text]
        # The index separates words by blanks and by signs of ASCII.
        assert all(character.isalnum() or not character.isascii() for character in word.text)
        assert not any(character.isspace() for character in word.text)
