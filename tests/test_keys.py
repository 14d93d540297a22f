"""The one place that says which texts are keys, how they are shown, and which are the same."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator import dashboard
from coordinator.keys import KeyForm, canonical, canonical_of_all, compared, read_key

ADA = [
    "ada",
    "Ada",
    "@ada",
    "@ADA",
    "https://x.com/ada",
    "http://x.com/Ada/",
    "https://www.x.com/ada?s=20",
    "https://twitter.com/ada/?lang=en&s=20",
    "https://m.twitter.com/ADA",
    "https://mobile.twitter.com/ada",
    "HTTPS://X.com/ada",
]
NOT_ADA = [
    "ada ",
    "@@ada",
    "@ada lovelace",
    "x.com/ada",
    "ftp://x.com/ada",
    "https://x.com/@ada",
    "https://x.com/ada/status/1",
    "https://x.com/ada#top",
    "https://api.x.com/ada",
    "https://notx.com/ada",
    "https://x.com.evil.example/ada",
    "https://x.com//ada",
    "a.da",
]


@pytest.mark.parametrize("written", ADA)
def test_handles_are_the_same_however_they_are_written(written: str) -> None:
    shown, _ = key = read_key(written, "handle")
    assert shown.lower() == "ada"
    assert compared(key) == "ada"
    assert canonical(written, "handle") == "ada"


def test_the_browser_compares_keys_in_the_same_way() -> None:
    cases = Path(dashboard.__file__).parent / "source" / "tests" / "item_keys.json"
    for written, handle, exact in json.loads(cases.read_text()):
        assert (canonical(written, "handle"), canonical(written, "exact")) == (handle, exact)


@pytest.mark.parametrize("written", NOT_ADA)
def test_all_other_keys_are_compared_as_they_are(written: str) -> None:
    assert read_key(written, "handle") == (written, None)
    assert compared(read_key(written.upper(), "handle")) == written.upper()


@pytest.mark.parametrize("written", [*ADA, *NOT_ADA])
def test_exact_keys_are_compared_as_they_are(written: str) -> None:
    assert read_key(written, "exact") == (written, None)


def test_a_handle_has_15_characters_of_ascii_at_most() -> None:
    assert compared(read_key("A" * 15, "handle")) == "a" * 15
    for no_handle in ("A" * 16, "@" + "A" * 16, "https://x.com/" + "A" * 16, "É", "https://x.com/\u017f", "@İ"):
        assert read_key(no_handle, "handle") == (no_handle, None)


@pytest.mark.parametrize("form", ["handle", "exact"])
def test_composed_and_decomposed_are_one_key(form: KeyForm) -> None:
    assert read_key("zoe\u0308", form) == ("zoë", None)
    assert read_key("\u212aada", "handle") == ("Kada", "kada")  # the sign of Kelvin becomes a letter
    with pytest.raises(ValueError, match="1 to 256"):
        read_key("\U0001d160" * 100, form)  # NFC makes three of each


@pytest.mark.parametrize(
    ("character", "name"),
    [
        ("\u200b", "U+200B ZERO WIDTH SPACE"),
        ("\u200d", "U+200D ZERO WIDTH JOINER"),
        ("\u202e", "U+202E RIGHT-TO-LEFT OVERRIDE"),
        ("\u00ad", "U+00AD SOFT HYPHEN"),
        ("\ufeff", "U+FEFF ZERO WIDTH NO-BREAK SPACE"),
        ("\U000e0041", "U+E0041 TAG LATIN CAPITAL LETTER A"),
        ("\u2028", "U+2028 LINE SEPARATOR"),
        ("\u2029", "U+2029 PARAGRAPH SEPARATOR"),
        ("\x1b", "U+001B CONTROL CHARACTER"),
        ("\x85", "U+0085 CONTROL CHARACTER"),
    ],
)
@pytest.mark.parametrize("form", ["handle", "exact"])
def test_what_cannot_be_seen_is_refused_by_name(character: str, name: str, form: KeyForm) -> None:
    for written in (f"a{character}da", f"@ada{character}", f"https://x.com/ada?{character}", character):
        with pytest.raises(ValueError, match=f"the invisible character {name.replace('+', '.')} is refused"):
            read_key(written, form)
    assert canonical(f"ada{character}", form) == f"ada{character}"  # which no item has


@pytest.mark.parametrize("length", [0, 257])
def test_a_key_has_1_to_256_characters(length: int) -> None:
    with pytest.raises(ValueError, match="a string of 1 to 256 characters was expected"):
        read_key("k" * length, "handle")


@given(st.text(max_size=40), st.sampled_from(["handle", "exact"]))
def test_reading_is_stable(written: str, form: KeyForm) -> None:
    """Property: what is shown is a key that is read as itself, and so is what is compared."""
    try:
        key = read_key(written, form)
    except ValueError:
        return
    assert read_key(key[0], form) == key
    assert read_key(compared(key), form) == (compared(key), None)
    assert unicodedata.is_normalized("NFC", key[0])


_KEYS = st.one_of(st.text(max_size=20), st.from_regex(r"@?[A-Za-z0-9_]{1,17}", fullmatch=True), st.sampled_from(ADA))


@given(st.lists(_KEYS, max_size=5), st.sampled_from(["handle", "exact"]))
def test_many_keys_are_compared_as_each_is(keys: list[str], form: KeyForm) -> None:
    assert list(canonical_of_all(keys, form)) == [canonical(key, form) for key in keys]
