"""Which pairs of interface strings are translations, and what is left of a string."""

import unicodedata

import pytest

from milco.data import text
from milco.languages import normal

GOOD = {
    "ar": "تعذر الاتصال بالجهاز",
    "bg": "Неуспешна връзка с устройството",
    "bn": "ডিভাইসের সাথে সংযোগ ব্যর্থ হয়েছে",
    "de": "Verbindung zum Gerät fehlgeschlagen",
    "el": "Η σύνδεση με τη συσκευή απέτυχε",
    "fa": "اتصال به دستگاه ناموفق بود",
    "he": "החיבור למכשיר נכשל",
    "hi": "डिवाइस से कनेक्ट नहीं हो सका",
    "hy": "Չհաջողվեց միանալ սարքին",
    "ja": "デバイスへの接続に失敗しました",
    "ka": "მოწყობილობასთან დაკავშირება ვერ მოხერხდა",
    "ko": "기기에 연결하지 못했습니다",
    "pt-BR": "Falha ao conectar ao dispositivo",
    "ru": "Не удалось подключиться к устройству",
    "ta": "சாதனத்துடன் இணைக்க முடியவில்லை",
    "te": "పరికరానికి కనెక్ట్ చేయడం విఫలమైంది",
    "th": "เชื่อมต่ออุปกรณ์ไม่สำเร็จ",
    "tr": "Cihaza bağlanılamadı",
    "vi": "Không thể kết nối với thiết bị",
    "zh": "无法连接到设备",
    "zh-Hant": "無法連線到裝置",
}
ENGLISH = "Failed to connect to the device"


@pytest.mark.parametrize("language", GOOD)
def test_translation_is_a_pair(language):
    assert text.rejection(ENGLISH, GOOD[language], language) is None


# Languages whose letters the rules once did not know, and codes that they did not read.
OTHERS = {
    "kn": "ಸಾಧನಕ್ಕೆ ಸಂಪರ್ಕಿಸಲು ವಿಫಲವಾಗಿದೆ",
    "mr": "उपकरणाशी कनेक्ट होऊ शकले नाही",
    "gu": "ઉપકરણ સાથે જોડાવામાં નિષ્ફળ",
    "si": "උපාංගයට සම්බන්ධ වීමට නොහැකි විය",
    "km": "បរាជ័យក្នុងការភ្ជាប់ទៅឧបករណ៍",
    "lo": "ເຊື່ອມຕໍ່ອຸປະກອນບໍ່ສຳເລັດ",
    "my": "ကိရိယာသို့ ချိတ်ဆက်၍မရပါ",
    "am": "ከመሣሪያው ጋር መገናኘት አልተቻለም",
    "be": "Не ўдалося падключыцца да прылады",
    "kk": "Құрылғыға қосылу мүмкін болмады",
    "ps": "وسیلې سره نښلول ناکام شول",
    "or": "ଡିଭାଇସ୍ ସହ ସଂଯୋଗ ବିଫଳ ହେଲା",
    "yi": "פֿאַרבינדונג מיטן אַפּאַראַט איז דורכגעפֿאַלן",
    "dv": "ޑިވައިސްއާ ގުޅުން ނުވި",
    "sr": "Povezivanje sa uređajem nije uspelo",
    "mul": "デバイスへの接続に失敗しました",
    "zho": GOOD["zh"],
    "zh_CN": GOOD["zh"],
    "cmn-Hans": GOOD["zh"],
    "hin_Deva": GOOD["hi"],
    "jpn": GOOD["ja"],
    "iw": GOOD["he"],
}


@pytest.mark.parametrize("language", OTHERS)
def test_translation_into_any_language_is_a_pair(language):
    assert text.rejection(ENGLISH, OTHERS[language], normal(language)) is None


@pytest.mark.parametrize("language", [code for code in GOOD if code not in ("de", "pt-BR", "tr", "vi")])
def test_latin_letters_are_not_the_language_s_script(language):
    assert text.rejection(ENGLISH, "Setsuzoku ni shippai shimashita", language) == "script"


@pytest.mark.parametrize("language", ["de", "pt-BR", "tr", "vi"])
def test_japanese_is_not_a_language_in_latin_letters(language):
    assert text.rejection(ENGLISH, GOOD["ja"], language) == "script"


@pytest.mark.parametrize("wrong, language", [("ru", "el"), ("ko", "ja"), ("hi", "te"), ("he", "ar")])
def test_text_in_another_script_is_refused(wrong, language):
    assert text.rejection(ENGLISH, GOOD[wrong], language) == "script"


def test_one_word_of_the_script_among_names_is_enough():
    assert text.rejection("Home Assistant OS settings", "Home Assistant OSの設定", "ja") is None


@pytest.mark.parametrize("language", ["sr-Latn", "sr-Latn-RS", "zh-Latn"])
def test_language_tag_decides_the_script(language):
    assert text.written_in("Podešavanja uređaja", language)
    assert not text.written_in("Подешавања уређаја", language)


@pytest.mark.parametrize(
    "other",
    ["ui::panel::config::automation", "ui::panel::lovelace::cards::energy-usage", "[%key:common::action::connect%]"],
)
def test_name_of_a_key_is_no_translation(other):
    assert text.rejection("Automation", other, "te") == "reference"


def test_reference_on_the_english_side_is_no_text():
    assert text.rejection("[%key:common::action::connect%]", "Verbinden", "de") == "reference"


def test_colons_within_a_sentence_are_no_key_name():
    assert text.rejection("The C++ type std::string is used", "Der C++-Typ std::string wird verwendet", "de") is None


@pytest.mark.parametrize(
    "english, german",
    [
        ("Connect to {name}", "Verbinden mit {nom}"),
        ("Connect to {name}", "Verbinden"),
        ("Connect", "Mit {name} verbinden"),
        ("{a} of {a}", "{a} von vielen"),
        ("Waited %(seconds)s seconds", "Sekunden gewartet"),
        ("Waited %s seconds", "%d Sekunden gewartet"),
        ("Press <b>start</b>", "Starten drücken"),
    ],
)
def test_pair_with_unequal_placeholders_is_refused(english, german):
    assert text.rejection(english, german, "de") == "placeholders"


def test_placeholders_may_change_their_order():
    assert text.rejection("{count} of {total} <b>devices</b>", "Von {total} <b>Geräten</b>: {count}", "de") is None


@pytest.mark.parametrize(
    "english, other, language",
    [
        ("Bluetooth", "Bluetooth", "de"),
        ("Access  token", "access token", "de"),
        ("Token", "  TOKEN: ", "de"),
        ("Straße", "STRASSE", "de"),
        ("Café", unicodedata.normalize("NFD", "Café"), "fr"),
        ("{name} hub", "{name}: Hub", "de"),
        ("Bluetooth", "Bluetooth", "ja"),
    ],
)
def test_string_that_was_left_in_english_is_refused(english, other, language):
    assert text.rejection(english, other, language) == "untranslated"


@pytest.mark.parametrize("english", ["", "{name}", "123 %", "→", "<br>", "–"])
def test_english_without_a_word_is_refused(english):
    assert text.rejection(english, english, "de") == "empty"


@pytest.mark.parametrize("other", ["", "42", "…"])
def test_translation_without_a_letter_is_refused(other):
    assert text.rejection("Forty-two", other, "de") == "script"


@pytest.mark.parametrize(
    "raw, plain",
    [
        ("Read [the documentation](https://example.org/a_b?c=d) first.", "Read the documentation first."),
        ("[ドキュメント]({url})をお読みください", "ドキュメントをお読みください"),
        ("Press <b>start</b>,<br/>then <a href='x'>stop</a>", "Press start , then stop"),
        ("Connect to {name} now", "Connect to now"),
        ("Waited %(seconds)s of %d seconds at %s", "Waited of seconds at"),
        ("Name: ", "Name"),
        ("- *Use* `code` - ", "Use code"),
        ('The device "{name}" is new', "The device is new"),
        ("Gerät „{name}“ ist neu", "Gerät ist neu"),
        ("两台设备（{names}）", "两台设备"),
        ("设备「{name}」、『 {name} 』和【{name}】", "设备 、 和"),
        ("Devices ({names}) found", "Devices found"),
        ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ("line one\n\n\tline\u00a0two\u3000three", "line one line two three"),
        ("עוצמת הקול של {name} ברמקול", "עוצמת הקול של ברמקול"),
        ("  {only} ", ""),
    ],
)
def test_only_plain_text_is_left(raw, plain):
    assert text.clean(raw) == plain


@pytest.mark.parametrize("raw", [*GOOD.values(), ENGLISH])
def test_plain_text_stays_as_it_is(raw):
    assert text.clean(raw) == unicodedata.normalize("NFC", raw)


@pytest.mark.parametrize("raw", ["Read [the {kind} manual]({url}) of <i>{name}</i>: *now*", "“{a}” – „{b}“:"])
def test_cleaning_twice_changes_nothing_more(raw):
    assert text.clean(text.clean(raw)) == text.clean(raw)


@pytest.mark.parametrize(
    "forms", ["{n, plural, one {device} other {devices}}", "{n,select,a {lamp} other {door}}", "{n, selectordinal, }"]
)
def test_string_with_the_forms_of_a_word_is_no_text(forms):
    assert text.program_text(f"Delete {forms} now") == "plural"
    assert text.rejection(f"Delete {forms} now", f"Jetzt {forms} löschen", "de") == "plural"
    assert text.rejection("Delete now", f"Jetzt {forms} löschen", "de") == "plural"


def test_placeholder_that_is_called_plural_is_text():
    assert text.program_text("Delete {plural}, {select}") is None


@pytest.mark.parametrize("word", ["Café", "Gerät", "ガス", "한국어", "Ελλάδα"])
def test_letters_and_their_marks_are_composed(word):
    apart = unicodedata.normalize("NFD", word)
    assert apart != word
    assert text.clean(apart) == word


@pytest.mark.parametrize(
    "first, second", [("Access  Token", "access token\n"), ("STRASSE", "straße"), ("ΟΔΟΣ", "οδος")]
)
def test_case_and_white_space_do_not_make_two_strings_different(first, second):
    assert text.comparable(first) == text.comparable(second)


def test_accents_make_two_strings_different():
    assert text.comparable("schon") != text.comparable("schön")


def test_placeholders_are_sorted_and_counted():
    assert text.placeholders("{b} <b>%s</b> {a} {b} %(n)d") == sorted(
        ["{b}", "<b>", "%s", "</b>", "{a}", "{b}", "%(n)d"]
    )
