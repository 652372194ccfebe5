"""Reader of gettext catalogues: the messages of a program, which are English, and their translations.

A catalogue is a .po or .mo file. Its language is taken from its path (de/LC_MESSAGES/app.po, app/de.po, app.de.po),
else from its header.
"""

import re
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath

import polib
from langcodes import Language, tag_is_valid

from milco.data.reading import files_of, warn
from milco.errors import MilcoError
from milco.languages import SEVERAL, normal

Read = Callable[[], bytes]
SCRIPTS = {"latin": "Latn", "cyrillic": "Cyrl"}  # as modifiers name them: sr@latin
# The letter that a key chooses: "_Open" and "&Open", in Chinese and Japanese "打开(_O)".
ACCELERATOR = re.compile(r"(?<![\w&])[_&](?=\w)")
ACCELERATORS = re.compile(r"\s*\([_&]\w\)|[_&](?=\w)")


def pairs(source: Path, languages: Iterable[str], language: str | None = None) -> Iterator[tuple[str, str, str]]:
    """Candidates (English, other, language) from the catalogues of a wheel, an archive, a folder, or one file.

    Untranslated, fuzzy and obsolete messages are skipped. A message with plural forms gives two pairs: singular with
    the first form, plural with the last. If app.po and app.mo both exist, app.po is read.

    Args:
        languages: those to read; mul: all.
        language: that of catalogues for which neither place nor header names one.

    Raises:
        MilcoError: there is no catalogue, or one cannot be read.
    """
    wanted, found, nameless = {*map(normal, languages)} - {"en"}, False, []
    for place, read in _catalogues(source):
        found, tag = True, language_of(place)
        if tag and not _among(wanted, tag):
            continue
        catalogue = _parsed(f"{source}: {place}", place.suffix, read())
        tag = tag or _tag(catalogue.metadata.get("Language", "")) or language
        if not tag:
            nameless.append(str(place))
        elif _among(wanted, tag):
            yield from ((*_plain(english, other), tag) for english, other in _messages(catalogue))
    if not found:
        raise MilcoError(f"{source}: no gettext catalogue in it, which is a file .po or .mo")
    if nameless:
        more = f" and {len(nameless) - 3:,} others" if len(nameless) > 3 else ""
        warn(f"{source}: not read, since no language is named: {', '.join(nameless[:3])}{more}")


def _among(wanted: set[str], tag: str) -> bool:
    return tag in wanted or (SEVERAL in wanted and tag.partition("-")[0] != "en")


def language_of(place: PurePosixPath) -> str | None:
    """The language that a catalogue's place names. A regional variant is the language itself where it is the usual one:
    zh_CN is zh, pt_BR is pt; zh_TW and pt_PT are languages of their own."""
    if "LC_MESSAGES" in place.parts[1:]:
        return _tag(place.parts[place.parts.index("LC_MESSAGES") - 1])
    named = [place.stem, place.stem.rpartition(".")[2], place.parent.name]
    # Many an ordinary word of three letters is also a code.
    return next(filter(None, (_tag(name) for name in named if not re.match(r"[A-Za-z]{3}\b", name))), None)


def _tag(locale: str) -> str | None:
    """The language tag of a locale (de_DE, sr@latin, de_DE.UTF-8), or None if it is no locale."""
    name, _, modifier = locale.partition(".")[0].partition("@")
    name, modifier = name.replace("_", "-"), modifier.lower()
    if not re.match(r"[A-Za-z]{2,3}(-|$)", name) or not tag_is_valid(name):
        return None
    if modifier:
        name += f"-{SCRIPTS.get(modifier, f'x-{modifier}')}"
    tag = normal(name)
    short = tag.partition("-")[0]
    return short if Language.get(tag).maximize() == Language.get(short).maximize() else tag


def _catalogues(source: Path) -> Iterator[tuple[PurePosixPath, Read]]:
    """Place of each catalogue, and how to read it."""
    files = files_of(source)[1] if source.is_dir() else [source]
    archives = [file for file in files if zipfile.is_zipfile(file)]
    for file in archives:
        with zipfile.ZipFile(file) as archive:
            yield from _chosen({PurePosixPath(name): partial(archive.read, name) for name in archive.namelist()})
    places = [file for file in files if file not in archives]
    yield from _chosen({PurePosixPath(file.relative_to(source.parent)): file.read_bytes for file in places})


def _chosen(files: dict[PurePosixPath, Read]) -> Iterator[tuple[PurePosixPath, Read]]:
    """The catalogues among some files by place, without a .mo beside its .po."""
    for place, read in sorted(files.items()):
        if place.suffix == ".po" or (place.suffix == ".mo" and place.with_suffix(".po") not in files):
            yield place, read


def _parsed(where: str, form: str, data: bytes) -> polib.POFile | polib.MOFile:
    try:
        if form == ".mo":
            return polib.mofile(data)
        charset = re.search(rb"charset=([\w-]+)", data)
        return polib.pofile(data.decode(charset[1].decode() if charset else "utf-8"))
    except (OSError, ValueError, LookupError, struct.error) as error:
        raise MilcoError(f"{where}: not a complete gettext catalogue ({error})") from None


def _messages(catalogue: polib.POFile | polib.MOFile) -> Iterator[tuple[str, str]]:
    for entry in catalogue:
        if entry.obsolete or "fuzzy" in entry.flags:
            continue
        if entry.msgid_plural:
            forms = [entry.msgstr_plural[number] for number in sorted(entry.msgstr_plural)]
            found = [(entry.msgid, forms[0]), (entry.msgid_plural, forms[-1])] if forms else []
        else:
            found = [(entry.msgid, entry.msgstr)]
        yield from ((english, other) for english, other in found if english and other)


def _plain(english: str, other: str) -> tuple[str, str]:
    """Both sides without accelerator marks. An underscore counts as a mark only before a word."""
    if ACCELERATOR.search(english):
        return ACCELERATORS.sub("", english), ACCELERATORS.sub("", other)
    return english, other
