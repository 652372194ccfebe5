"""Parallel text out of gettext catalogues: which messages are pairs, and in which language."""

import zipfile
from pathlib import Path, PurePosixPath

import polib
import pytest

from milco.data import gettext
from milco.errors import MilcoError

PO = """
msgid ""
msgstr ""
"Content-Type: text/plain; charset=UTF-8\\n"
"Language: {header}\\n"

msgid "_Open the file"
msgstr "Die Datei ö_ffnen"

msgctxt "menu"
msgid "Close"
msgstr "Schließen"

msgid "%d day"
msgid_plural "%d days"
msgstr[0] "%d Tag"
msgstr[1] "%d Tage"

msgid "Not yet translated"
msgstr ""

#, fuzzy
msgid "Guessed"
msgstr "Geraten"

#~ msgid "No longer there"
#~ msgstr "Nicht mehr da"
"""
PAIRS = [
    ("Open the file", "Die Datei öffnen"),
    ("Close", "Schließen"),
    ("%d day", "%d Tag"),
    ("%d days", "%d Tage"),
]


def write_po(path: Path, header: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PO.format(header=header), encoding="utf-8")
    return path


def write_mo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    polib.pofile(PO.format(header="")).save_as_mofile(str(path))
    return path


def test_messages_are_pairs_unless_they_are_empty_fuzzy_or_obsolete(tmp_path):
    write_po(tmp_path / "app" / "de" / "LC_MESSAGES" / "app.po")
    found = list(gettext.pairs(tmp_path, ["mul"]))
    assert found == [(*pair, "de") for pair in PAIRS]


def test_compiled_catalogues_and_archives_give_the_same(tmp_path):
    catalogue = write_mo(tmp_path / "locale" / "de" / "LC_MESSAGES" / "app.mo")
    wheel = tmp_path / "app.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(catalogue, "app/locale/de/LC_MESSAGES/app.mo")
        archive.writestr("app/__init__.py", "")
    wanted = sorted((*pair, "de") for pair in PAIRS)
    fetched = tmp_path / "fetched"  # a wheel in a folder, as rule fetch leaves it
    fetched.mkdir()
    wheel.rename(fetched / wheel.name)
    for source in (catalogue.parents[2], fetched, fetched / wheel.name):
        assert sorted(gettext.pairs(source, ["mul"])) == wanted


def test_a_compiled_catalogue_beside_its_source_is_not_read_twice(tmp_path):
    write_po(tmp_path / "de" / "LC_MESSAGES" / "app.po")
    write_mo(tmp_path / "de" / "LC_MESSAGES" / "app.mo")
    write_mo(tmp_path / "de" / "LC_MESSAGES" / "other.mo")
    assert len(list(gettext.pairs(tmp_path, ["mul"]))) == 2 * len(PAIRS)


@pytest.mark.parametrize(
    ("place", "language"),
    {
        "locale/pt_BR/LC_MESSAGES/app.mo": "pt",  # the usual ones of their languages
        "zh_CN/LC_MESSAGES/app.mo": "zh",
        "zh_Hans/LC_MESSAGES/app.mo": "zh",
        "de_DE.UTF-8/LC_MESSAGES/app.mo": "de",
        "iw/LC_MESSAGES/app.mo": "he",
        "zh_TW/LC_MESSAGES/app.mo": "zh-TW",
        "pt_PT/LC_MESSAGES/app.mo": "pt-PT",
        "sr@latin/LC_MESSAGES/app.mo": "sr-Latn",
        "ca@valencia/LC_MESSAGES/app.mo": "ca-x-valencia",
        "po/de.po": "de",
        "locale/messages.de.po": "de",
        "de/messages.po": "de",
        "fil/LC_MESSAGES/app.mo": "fil",
        "locale/de_Formal/LC_MESSAGES/app.mo": None,
        "locale/app.po": None,
        "LC_MESSAGES/app.mo": None,
    }.items(),
)
def test_a_place_names_the_language(place, language):
    assert gettext.language_of(PurePosixPath(place)) == language


def test_the_header_names_it_otherwise_and_then_the_source(tmp_path, capsys):
    said = write_po(tmp_path / "said" / "catalogue.po", "pt_BR")
    assert {language for _, _, language in gettext.pairs(said, ["mul"])} == {"pt"}
    silent = write_po(tmp_path / "silent" / "catalogue.po")
    assert {language for _, _, language in gettext.pairs(silent, ["mul"], "de")} == {"de"}
    assert list(gettext.pairs(silent.parent, ["mul"])) == []
    assert "not read, since no language is named: silent/catalogue.po" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("languages", "found"),
    [(["mul"], {"de", "pt", "zh-TW"}), (["zho-TW", "en"], {"zh-TW"}), (["zh", "pt-BR"], set()), (["de"], {"de"})],
)
def test_the_languages_that_are_wanted_are_read_and_english_never(tmp_path, languages, found):
    for locale in ("de", "en", "en_GB", "pt_BR", "zh_TW"):
        write_po(tmp_path / locale / "LC_MESSAGES" / "app.po")
    assert {language for _, _, language in gettext.pairs(tmp_path, languages)} == found


def test_catalogues_of_other_languages_are_not_opened(tmp_path):
    write_po(tmp_path / "de.po")
    (tmp_path / "fr.po").write_bytes(b"no catalogue")
    assert len(list(gettext.pairs(tmp_path, ["de"]))) == len(PAIRS)


@pytest.mark.parametrize(
    ("english", "other", "plain"),
    [
        ("_Open", "打开(_O)", ("Open", "打开")),
        ("Save &As", "ファイル (&A)", ("Save As", "ファイル")),
        ("user_name", "nom_utilisateur", ("user_name", "nom_utilisateur")),
        ("Terms & conditions", "AGB & Regeln", ("Terms & conditions", "AGB & Regeln")),
        ("R&D", "F&E", ("R&D", "F&E")),
    ],
)
def test_marks_of_accelerators_go(tmp_path, english, other, plain):
    catalogue = tmp_path / "xx" / "de.po"
    catalogue.parent.mkdir()
    catalogue.write_text(f'msgid "{english}"\nmsgstr "{other}"\n', encoding="utf-8")
    assert list(gettext.pairs(catalogue, ["mul"])) == [(*plain, "de")]


def test_letters_are_read_as_the_header_says(tmp_path):
    catalogue = tmp_path / "de.po"
    header = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=ISO-8859-1\\n"\n\n'
    catalogue.write_bytes((header + 'msgid "Close"\nmsgstr "Schließen"\n').encode("latin-1"))
    assert list(gettext.pairs(catalogue, ["mul"])) == [("Close", "Schließen", "de")]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("de.po", b'msgid "Open"\nmsgstr "no end\nmsgid'),
        ("de.po", 'msgid "Open"\nmsgstr "Öffnen"\n'.encode("latin-1")),
        ("de.po", b'msgid ""\nmsgstr "Content-Type: text/plain; charset=nonsense\\n"\n'),
        ("de.mo", b"\xde\x12\x04\x95\x00\x00\x00\x00\x09\x00\x00\x00"),
        ("de.mo", b""),
        ("de.mo", b"no catalogue"),
    ],
)
def test_what_is_no_catalogue_is_named(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(MilcoError, match=rf"{tmp_path}.*{name}: not a complete gettext catalogue \(.+\)$"):
        list(gettext.pairs(tmp_path, ["mul"]))


def test_a_source_without_a_catalogue_is_named(tmp_path):
    (tmp_path / "readme.txt").write_text("nothing")
    with pytest.raises(MilcoError, match=rf"^{tmp_path}: no gettext catalogue"):
        list(gettext.pairs(tmp_path, ["mul"]))
