"""Normal form of language tags, and the scripts of languages.

Tags are those of BCP 47 with what else is in use (ISO 639-3, old and underscored codes), scripts are Unicode's. Which
scripts a language is written in is what CLDR and the IANA registry say, as langcodes has it.
"""

from functools import lru_cache

import regex
from langcodes import Language, LanguageTagError, standardize_tag

SEVERAL = "mul"  # text in several languages, without a word on which text is in which
CERTAIN = 0.99  # share of a language's readers who must use one script for other letters to be certainly wrong
# Codes of ISO 15924 for scripts that Unicode knows as several, or as one under another name.
UNICODE_SCRIPTS = {
    "Hanb": ["Hani", "Bopo"],
    "Hans": ["Hani"],
    "Hant": ["Hani"],
    "Hrkt": ["Hira", "Kana"],
    "Jpan": ["Hira", "Kana", "Hani"],
    "Kore": ["Hang", "Hani"],
}


@lru_cache(maxsize=4096)
def normal(tag: str) -> str:
    """The one form of a tag: zho, ZH and cmn are zh; zh_CN is zh-CN; hin_Deva is hi; sr-Latn stays. What is no tag
    stays as it is."""
    try:
        return standardize_tag(tag, macro=True)
    except LanguageTagError:
        return tag


@lru_cache(maxsize=4096)
def letters(tag: str) -> regex.Pattern[str]:
    """Pattern for one letter of the language's scripts; for any letter if its scripts are not certain."""
    script = _only_script(tag)
    names = UNICODE_SCRIPTS.get(script, [script]) if script else []
    scripts = "".join(rf"\p{{Script_Extensions={name}}}" for name in names)
    try:
        return regex.compile(rf"(?V1)[[{scripts}]&&\p{{L}}]" if scripts else r"\p{L}")
    except regex.error:  # a script of ISO 15924 that Unicode does not know
        return regex.compile(r"\p{L}")


def _only_script(tag: str) -> str | None:
    """The script in the tag, or the one that nearly all writers of the language use; None if there is none."""
    try:
        language = Language.get(tag)
    except LanguageTagError:
        return None
    if language.script:
        return language.script
    if language.language == "zh":  # the registry names none of its two scripts, but both have the same letters
        return "Hani"
    script = language.assume_script().script
    if script is None:
        return None
    everybody = Language.make(language=language.language).writing_population()
    readers = Language.make(language=language.language, script=script).writing_population()
    return script if readers >= CERTAIN * everybody else None
