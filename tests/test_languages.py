"""Language tags in one form, and texts that are certainly not in a language."""

import pytest

from milco.data.text import written_in
from milco.languages import letters, normal


@pytest.mark.parametrize(
    "wanted, tags",
    [
        ("zh", ["zh", "ZH", "zho", "chi", "cmn"]),
        ("zh-CN", ["zh-CN", "zh_CN", "zho-CN"]),
        ("zh-Hans", ["zh-hans", "cmn-Hans", "zho_Hans"]),
        ("zh-TW", ["zh_tw"]),
        ("hi", ["hin", "hin_Deva", "hi-Deva"]),
        ("ru", ["rus", "rus-Cyrl"]),
        ("ja", ["jpn", "jpn-Jpan"]),
        ("ar", ["ara", "arb", "ara-Arab"]),
        ("fa", ["fas", "pes"]),
        ("sw", ["swa", "swh"]),
        ("he", ["iw", "heb"]),
        ("en", ["eng", "eng-Latn"]),
        ("sr", ["srp"]),
        ("sr-Latn", ["srp-Latn", "sr_latn", "sh"]),
        ("sr-Cyrl", ["srp-Cyrl"]),
        ("pt-BR", ["pt_br", "por-BR"]),
    ],
)
def test_all_codes_of_a_language_become_one(wanted, tags):
    assert {normal(tag) for tag in [wanted, *tags]} == {wanted}


@pytest.mark.parametrize("tag", ["mul", "xx", "und", "c++", "", "no tag at all"])
def test_what_is_no_language_stays_as_it_is(tag):
    assert normal(tag) == tag


LATIN, CYRILLIC, ARABIC, HAN = "dobro jutro", "добро јутро", "صباح الخير", "早上好"


@pytest.mark.parametrize("language", ["sr", "uz", "az", "ku", "kk", "tt", "bs", "mn", "mul", "xx", "c++", "nan", "yue"])
def test_nothing_is_certain_of_a_language_with_several_scripts_or_none_that_is_known(language):
    assert all(written_in(text, language) for text in (LATIN, CYRILLIC, ARABIC, HAN))


@pytest.mark.parametrize("language", ["ms", "pa"])
def test_a_script_of_some_of_the_readers_is_theirs(language):
    assert written_in("ਸ਼ੁਭ ਸਵੇਰ", language) and written_in(ARABIC, language) and written_in(LATIN, language)


@pytest.mark.parametrize(
    "language, wanted",
    [
        ("ru", CYRILLIC),
        ("bg", CYRILLIC),
        ("fa", ARABIC),
        ("zh", HAN),
        ("zh-CN", HAN),
        ("zh-Hant", HAN),
        ("ja", HAN),
        ("de", LATIN),
        ("de-AT", LATIN),
        ("sr-Latn", LATIN),
        ("sr-Cyrl", CYRILLIC),
        ("uz-Cyrl", CYRILLIC),
        ("ms-Arab", ARABIC),
    ],
)
def test_a_language_of_one_script_has_a_letter_of_it(language, wanted):
    assert {text for text in (LATIN, CYRILLIC, ARABIC, HAN) if written_in(text, language)} == {wanted}


def test_letters_alone_count_and_those_that_scripts_share_count_for_each():
    assert not letters("hi").search("४२ ।") and letters("hi").search("नमस्ते ४२")
    assert letters("ja").search("ー") and not letters("ja").search("。、・")
    assert not letters("mul").search("2 + 2 = 4 🙂")


def test_a_script_that_unicode_does_not_know_is_any():
    assert letters("de-Latf").search("早")
