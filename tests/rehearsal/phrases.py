"""Everyday sentences in many languages, of which the stand-ins for the Hub's text are made.

`TEXTS[language]` holds six questions and their six answers, the same in every language (the last few have the answers
alone). `GREETINGS` are two phrases in the other languages of CCMatrix.
"""

from itertools import permutations

TEXTS = {
    "en": """
Where is the library?
When does the train leave?
Who wrote this book?
Why is the river so high?
How much does the bread cost?
What do birds eat in winter?
The library is next to the station.
The train leaves at eight in the morning.
My sister wrote this book last year.
It rained all week, so the river is high.
The bread costs two coins at the market.
In winter birds eat seeds and berries.""",
    "am": """
ቤተ መጻሕፍቱ የት ነው?
ባቡሩ መቼ ይነሳል?
ይህን መጽሐፍ ማን ጻፈው?
ወንዙ ለምን ሞላ?
ዳቦው ስንት ነው?
ወፎች በክረምት ምን ይበላሉ?
ቤተ መጻሕፍቱ ከጣቢያው አጠገብ ነው።
ባቡሩ ከጠዋቱ ሁለት ሰዓት ይነሳል።
እህቴ ይህን መጽሐፍ ባለፈው ዓመት ጻፈች።
ሳምንቱን ሙሉ ስለዘነበ ወንዙ ሞልቷል።
ዳቦው በገበያ ሁለት ሳንቲም ነው።
ወፎች በክረምት ዘርና ፍሬ ይበላሉ።""",
    "ar": """
أين تقع المكتبة؟
متى يغادر القطار؟
من كتب هذا الكتاب؟
لماذا ارتفع ماء النهر؟
كم ثمن الخبز؟
ماذا تأكل الطيور في الشتاء؟
تقع المكتبة بجانب المحطة.
يغادر القطار في الثامنة صباحا.
كتبت أختي هذا الكتاب في العام الماضي.
هطل المطر طوال الأسبوع فارتفع ماء النهر.
ثمن الخبز قطعتان نقديتان في السوق.
تأكل الطيور في الشتاء البذور والتوت.""",
    "bg": """
Къде е библиотеката?
Кога тръгва влакът?
Кой написа тази книга?
Защо реката е толкова висока?
Колко струва хлябът?
Какво ядат птиците през зимата?
Библиотеката е до гарата.
Влакът тръгва в осем сутринта.
Сестра ми написа тази книга миналата година.
Цяла седмица валя и реката е висока.
Хлябът струва две монети на пазара.
През зимата птиците ядат семена и плодове.""",
    "bn": """
গ্রন্থাগার কোথায়?
ট্রেন কখন ছাড়ে?
এই বইটি কে লিখেছেন?
নদীর জল এত উঁচু কেন?
রুটির দাম কত?
পাখিরা শীতকালে কী খায়?
গ্রন্থাগার স্টেশনের পাশে।
ট্রেন সকাল আটটায় ছাড়ে।
আমার বোন গত বছর এই বইটি লিখেছেন।
সারা সপ্তাহ বৃষ্টি হয়েছে, তাই নদীর জল উঁচু।
বাজারে রুটির দাম দুই টাকা।
শীতকালে পাখিরা বীজ ও ফল খায়।""",
    "cs": """
Kde je knihovna?
Kdy odjíždí vlak?
Kdo napsal tuto knihu?
Proč je řeka tak vysoká?
Kolik stojí chléb?
Co jedí ptáci v zimě?
Knihovna je vedle nádraží.
Vlak odjíždí v osm ráno.
Moje sestra napsala tuto knihu loni.
Celý týden pršelo, proto je řeka vysoká.
Chléb stojí na trhu dvě mince.
V zimě jedí ptáci semena a bobule.""",
    "da": """
Hvor ligger biblioteket?
Hvornår kører toget?
Hvem skrev denne bog?
Hvorfor er floden så høj?
Hvad koster brødet?
Hvad spiser fugle om vinteren?
Biblioteket ligger ved siden af stationen.
Toget kører klokken otte om morgenen.
Min søster skrev denne bog sidste år.
Det regnede hele ugen, så floden er høj.
Brødet koster to mønter på markedet.
Om vinteren spiser fugle frø og bær.""",
    "de": """
Wo ist die Bibliothek?
Wann fährt der Zug ab?
Wer hat dieses Buch geschrieben?
Warum steht der Fluss so hoch?
Wie viel kostet das Brot?
Was fressen Vögel im Winter?
Die Bibliothek ist neben dem Bahnhof.
Der Zug fährt um acht Uhr morgens ab.
Meine Schwester hat dieses Buch letztes Jahr geschrieben.
Es hat die ganze Woche geregnet, darum steht der Fluss hoch.
Das Brot kostet auf dem Markt zwei Münzen.
Im Winter fressen Vögel Samen und Beeren.""",
    "el": """
Πού είναι η βιβλιοθήκη;
Πότε φεύγει το τρένο;
Ποιος έγραψε αυτό το βιβλίο;
Γιατί είναι τόσο ψηλά το ποτάμι;
Πόσο κοστίζει το ψωμί;
Τι τρώνε τα πουλιά τον χειμώνα;
Η βιβλιοθήκη είναι δίπλα στον σταθμό.
Το τρένο φεύγει στις οκτώ το πρωί.
Η αδελφή μου έγραψε αυτό το βιβλίο πέρυσι.
Έβρεχε όλη την εβδομάδα και το ποτάμι είναι ψηλά.
Το ψωμί κοστίζει δύο νομίσματα στην αγορά.
Τον χειμώνα τα πουλιά τρώνε σπόρους και μούρα.""",
    "es": """
¿Dónde está la biblioteca?
¿Cuándo sale el tren?
¿Quién escribió este libro?
¿Por qué está tan alto el río?
¿Cuánto cuesta el pan?
¿Qué comen los pájaros en invierno?
La biblioteca está al lado de la estación.
El tren sale a las ocho de la mañana.
Mi hermana escribió este libro el año pasado.
Llovió toda la semana, por eso el río está alto.
El pan cuesta dos monedas en el mercado.
En invierno los pájaros comen semillas y bayas.""",
    "fa": """
کتابخانه کجاست؟
قطار کی حرکت می‌کند؟
این کتاب را چه کسی نوشت؟
چرا آب رودخانه این‌قدر بالاست؟
قیمت نان چقدر است؟
پرندگان در زمستان چه می‌خورند؟
کتابخانه کنار ایستگاه است.
قطار ساعت هشت صبح حرکت می‌کند.
خواهرم این کتاب را سال گذشته نوشت.
تمام هفته باران بارید و آب رودخانه بالاست.
قیمت نان در بازار دو سکه است.
پرندگان در زمستان دانه و توت می‌خورند.""",
    "fi": """
Missä kirjasto on?
Milloin juna lähtee?
Kuka kirjoitti tämän kirjan?
Miksi joki on niin korkealla?
Paljonko leipä maksaa?
Mitä linnut syövät talvella?
Kirjasto on aseman vieressä.
Juna lähtee kello kahdeksan aamulla.
Siskoni kirjoitti tämän kirjan viime vuonna.
Koko viikon satoi, joten joki on korkealla.
Leipä maksaa torilla kaksi kolikkoa.
Talvella linnut syövät siemeniä ja marjoja.""",
    "fr": """
Où est la bibliothèque ?
Quand part le train ?
Qui a écrit ce livre ?
Pourquoi la rivière est-elle si haute ?
Combien coûte le pain ?
Que mangent les oiseaux en hiver ?
La bibliothèque est à côté de la gare.
Le train part à huit heures du matin.
Ma sœur a écrit ce livre l'année dernière.
Il a plu toute la semaine, alors la rivière est haute.
Le pain coûte deux pièces au marché.
En hiver, les oiseaux mangent des graines et des baies.""",
    "he": """
איפה הספרייה?
מתי יוצאת הרכבת?
מי כתב את הספר הזה?
למה הנהר כל כך גבוה?
כמה עולה הלחם?
מה אוכלות הציפורים בחורף?
הספרייה נמצאת ליד התחנה.
הרכבת יוצאת בשמונה בבוקר.
אחותי כתבה את הספר הזה בשנה שעברה.
ירד גשם כל השבוע ולכן הנהר גבוה.
הלחם עולה שני מטבעות בשוק.
בחורף הציפורים אוכלות זרעים ופירות יער.""",
    "hi": """
पुस्तकालय कहाँ है?
रेलगाड़ी कब छूटती है?
यह किताब किसने लिखी?
नदी इतनी ऊँची क्यों है?
रोटी की कीमत क्या है?
पक्षी सर्दियों में क्या खाते हैं?
पुस्तकालय स्टेशन के पास है।
रेलगाड़ी सुबह आठ बजे छूटती है।
मेरी बहन ने यह किताब पिछले साल लिखी।
पूरे हफ्ते बारिश हुई, इसलिए नदी ऊँची है।
बाज़ार में रोटी की कीमत दो सिक्के है।
सर्दियों में पक्षी बीज और फल खाते हैं।""",
    "hu": """
Hol van a könyvtár?
Mikor indul a vonat?
Ki írta ezt a könyvet?
Miért ilyen magas a folyó?
Mennyibe kerül a kenyér?
Mit esznek a madarak télen?
A könyvtár az állomás mellett van.
A vonat reggel nyolckor indul.
A nővérem írta ezt a könyvet tavaly.
Egész héten esett, ezért magas a folyó.
A kenyér két érmébe kerül a piacon.
Télen a madarak magokat és bogyókat esznek.""",
    "id": """
Di mana perpustakaan?
Kapan kereta berangkat?
Siapa yang menulis buku ini?
Mengapa sungai begitu tinggi?
Berapa harga roti?
Apa yang dimakan burung di musim dingin?
Perpustakaan ada di sebelah stasiun.
Kereta berangkat pukul delapan pagi.
Kakak saya menulis buku ini tahun lalu.
Hujan turun sepanjang minggu, jadi sungai tinggi.
Harga roti dua koin di pasar.
Di musim dingin burung makan biji dan buah beri.""",
    "it": """
Dov'è la biblioteca?
Quando parte il treno?
Chi ha scritto questo libro?
Perché il fiume è così alto?
Quanto costa il pane?
Che cosa mangiano gli uccelli d'inverno?
La biblioteca è accanto alla stazione.
Il treno parte alle otto di mattina.
Mia sorella ha scritto questo libro l'anno scorso.
È piovuto tutta la settimana, perciò il fiume è alto.
Il pane costa due monete al mercato.
D'inverno gli uccelli mangiano semi e bacche.""",
    "ja": """
図書館はどこですか？
電車はいつ出ますか？
この本は誰が書きましたか？
なぜ川の水が高いのですか？
パンはいくらですか？
鳥は冬に何を食べますか？
図書館は駅のとなりです。
電車は朝の八時に出ます。
姉は去年この本を書きました。
一週間ずっと雨だったので川の水が高いです。
パンは市場でコイン二枚です。
冬に鳥はタネや木の実を食べます。""",
    "ka": """
სად არის ბიბლიოთეკა?
როდის გადის მატარებელი?
ვინ დაწერა ეს წიგნი?
რატომ არის მდინარე ასე მაღალი?
რა ღირს პური?
რას ჭამენ ჩიტები ზამთარში?
ბიბლიოთეკა სადგურის გვერდით არის.
მატარებელი დილის რვა საათზე გადის.
ჩემმა დამ ეს წიგნი შარშან დაწერა.
მთელი კვირა წვიმდა და მდინარე მაღალია.
პური ბაზარში ორი მონეტა ღირს.
ზამთარში ჩიტები თესლს და კენკრას ჭამენ.""",
    "km": """
បណ្ណាល័យនៅឯណា?
រថភ្លើងចេញនៅពេលណា?
អ្នកណាសរសេរសៀវភៅនេះ?
ហេតុអ្វីទឹកទន្លេឡើងខ្ពស់?
នំប៉័ងថ្លៃប៉ុន្មាន?
បក្សីស៊ីអ្វីនៅរដូវរងា?
បណ្ណាល័យនៅជាប់ស្ថានីយ៍។
រថភ្លើងចេញនៅម៉ោងប្រាំបីព្រឹក។
បងស្រីខ្ញុំសរសេរសៀវភៅនេះកាលពីឆ្នាំមុន។
ភ្លៀងធ្លាក់ពេញមួយសប្តាហ៍ ដូច្នេះទឹកទន្លេឡើងខ្ពស់។
នំប៉័ងថ្លៃពីរកាក់នៅផ្សារ។
នៅរដូវរងា បក្សីស៊ីគ្រាប់ និងផ្លែឈើ។""",
    "ko": """
도서관은 어디에 있습니까?
기차는 언제 떠납니까?
이 책은 누가 썼습니까?
강물이 왜 이렇게 높습니까?
빵은 얼마입니까?
새는 겨울에 무엇을 먹습니까?
도서관은 역 옆에 있습니다.
기차는 아침 여덟 시에 떠납니다.
누나가 작년에 이 책을 썼습니다.
일주일 내내 비가 와서 강물이 높습니다.
빵은 시장에서 동전 두 개입니다.
겨울에 새는 씨앗과 열매를 먹습니다.""",
    "ms": """
Di manakah perpustakaan?
Bilakah kereta api bertolak?
Siapakah yang menulis buku ini?
Mengapakah sungai begitu tinggi?
Berapakah harga roti?
Apakah yang dimakan burung pada musim sejuk?
Perpustakaan terletak di sebelah stesen.
Kereta api bertolak pada pukul lapan pagi.
Kakak saya menulis buku ini pada tahun lepas.
Hujan turun sepanjang minggu, maka sungai tinggi.
Harga roti dua syiling di pasar.
Pada musim sejuk burung makan biji dan beri.""",
    "nl": """
Waar is de bibliotheek?
Wanneer vertrekt de trein?
Wie heeft dit boek geschreven?
Waarom staat de rivier zo hoog?
Hoeveel kost het brood?
Wat eten vogels in de winter?
De bibliotheek is naast het station.
De trein vertrekt om acht uur in de ochtend.
Mijn zus heeft dit boek vorig jaar geschreven.
Het regende de hele week, daarom staat de rivier hoog.
Het brood kost twee munten op de markt.
In de winter eten vogels zaden en bessen.""",
    "no": """
Hvor er biblioteket?
Når går toget?
Hvem skrev denne boka?
Hvorfor er elva så høy?
Hva koster brødet?
Hva spiser fugler om vinteren?
Biblioteket er ved siden av stasjonen.
Toget går klokka åtte om morgenen.
Søsteren min skrev denne boka i fjor.
Det regnet hele uka, så elva er høy.
Brødet koster to mynter på torget.
Om vinteren spiser fugler frø og bær.""",
    "pl": """
Gdzie jest biblioteka?
Kiedy odjeżdża pociąg?
Kto napisał tę książkę?
Dlaczego rzeka jest tak wysoka?
Ile kosztuje chleb?
Co jedzą ptaki zimą?
Biblioteka jest obok dworca.
Pociąg odjeżdża o ósmej rano.
Moja siostra napisała tę książkę w zeszłym roku.
Cały tydzień padało, więc rzeka jest wysoka.
Chleb kosztuje na targu dwie monety.
Zimą ptaki jedzą nasiona i jagody.""",
    "pt": """
Onde fica a biblioteca?
Quando parte o trem?
Quem escreveu este livro?
Por que o rio está tão alto?
Quanto custa o pão?
O que os pássaros comem no inverno?
A biblioteca fica ao lado da estação.
O trem parte às oito da manhã.
Minha irmã escreveu este livro no ano passado.
Choveu a semana toda, por isso o rio está alto.
O pão custa duas moedas no mercado.
No inverno os pássaros comem sementes e frutas.""",
    "ro": """
Unde este biblioteca?
Când pleacă trenul?
Cine a scris această carte?
De ce este râul atât de înalt?
Cât costă pâinea?
Ce mănâncă păsările iarna?
Biblioteca este lângă gară.
Trenul pleacă la opt dimineața.
Sora mea a scris această carte anul trecut.
A plouat toată săptămâna, de aceea râul este înalt.
Pâinea costă două monede la piață.
Iarna păsările mănâncă semințe și fructe.""",
    "ru": """
Где находится библиотека?
Когда отходит поезд?
Кто написал эту книгу?
Почему река так высока?
Сколько стоит хлеб?
Что едят птицы зимой?
Библиотека находится рядом с вокзалом.
Поезд отходит в восемь утра.
Моя сестра написала эту книгу в прошлом году.
Всю неделю шёл дождь, поэтому река высока.
Хлеб стоит на рынке две монеты.
Зимой птицы едят семена и ягоды.""",
    "sv": """
Var ligger biblioteket?
När går tåget?
Vem skrev den här boken?
Varför är floden så hög?
Vad kostar brödet?
Vad äter fåglar på vintern?
Biblioteket ligger bredvid stationen.
Tåget går klockan åtta på morgonen.
Min syster skrev den här boken förra året.
Det regnade hela veckan, så floden är hög.
Brödet kostar två mynt på torget.
På vintern äter fåglar frön och bär.""",
    "sw": """
Maktaba iko wapi?
Treni inaondoka lini?
Nani aliandika kitabu hiki?
Kwa nini mto umejaa sana?
Mkate unagharimu kiasi gani?
Ndege hula nini wakati wa baridi?
Maktaba iko karibu na kituo.
Treni inaondoka saa mbili asubuhi.
Dada yangu aliandika kitabu hiki mwaka jana.
Mvua ilinyesha wiki nzima, kwa hiyo mto umejaa.
Mkate unagharimu sarafu mbili sokoni.
Wakati wa baridi ndege hula mbegu na matunda.""",
    "ta": """
நூலகம் எங்கே இருக்கிறது?
ரயில் எப்போது புறப்படும்?
இந்தப் புத்தகத்தை யார் எழுதினார்?
ஆற்றில் நீர் ஏன் உயர்ந்தது?
ரொட்டியின் விலை என்ன?
பறவைகள் குளிர்காலத்தில் என்ன சாப்பிடும்?
நூலகம் நிலையத்தின் அருகில் இருக்கிறது.
ரயில் காலை எட்டு மணிக்குப் புறப்படும்.
என் சகோதரி கடந்த ஆண்டு இந்தப் புத்தகத்தை எழுதினார்.
வாரம் முழுவதும் மழை பெய்ததால் ஆற்றில் நீர் உயர்ந்தது.
சந்தையில் ரொட்டியின் விலை இரண்டு நாணயங்கள்.
குளிர்காலத்தில் பறவைகள் விதைகளையும் பழங்களையும் சாப்பிடும்.""",
    "te": """
గ్రంథాలయం ఎక్కడ ఉంది?
రైలు ఎప్పుడు బయలుదేరుతుంది?
ఈ పుస్తకం ఎవరు రాశారు?
నది నీరు ఎందుకు పెరిగింది?
రొట్టె ధర ఎంత?
పక్షులు చలికాలంలో ఏమి తింటాయి?
గ్రంథాలయం స్టేషన్ పక్కన ఉంది.
రైలు ఉదయం ఎనిమిది గంటలకు బయలుదేరుతుంది.
మా అక్క గత సంవత్సరం ఈ పుస్తకం రాసింది.
వారమంతా వర్షం పడింది, అందుకే నది నీరు పెరిగింది.
సంతలో రొట్టె ధర రెండు నాణేలు.
చలికాలంలో పక్షులు విత్తనాలు మరియు పండ్లు తింటాయి.""",
    "th": """
ห้องสมุดอยู่ที่ไหน
รถไฟออกเมื่อไร
ใครเขียนหนังสือเล่มนี้
ทำไมน้ำในแม่น้ำจึงสูง
ขนมปังราคาเท่าไร
นกกินอะไรในฤดูหนาว
ห้องสมุดอยู่ข้างสถานี
รถไฟออกตอนแปดโมงเช้า
พี่สาวของฉันเขียนหนังสือเล่มนี้เมื่อปีที่แล้ว
ฝนตกทั้งสัปดาห์ น้ำในแม่น้ำจึงสูง
ขนมปังราคาสองเหรียญที่ตลาด
ในฤดูหนาวนกกินเมล็ดพืชและผลไม้""",
    "tr": """
Kütüphane nerede?
Tren ne zaman kalkıyor?
Bu kitabı kim yazdı?
Nehir neden bu kadar yüksek?
Ekmek kaç para?
Kuşlar kışın ne yer?
Kütüphane istasyonun yanında.
Tren sabah sekizde kalkıyor.
Kız kardeşim bu kitabı geçen yıl yazdı.
Bütün hafta yağmur yağdı, bu yüzden nehir yüksek.
Ekmek pazarda iki para.
Kışın kuşlar tohum ve meyve yer.""",
    "uk": """
Де знаходиться бібліотека?
Коли відходить потяг?
Хто написав цю книжку?
Чому річка така висока?
Скільки коштує хліб?
Що їдять птахи взимку?
Бібліотека знаходиться поруч із вокзалом.
Потяг відходить о восьмій ранку.
Моя сестра написала цю книжку торік.
Увесь тиждень йшов дощ, тому річка висока.
Хліб коштує на ринку дві монети.
Узимку птахи їдять насіння та ягоди.""",
    "vi": """
Thư viện ở đâu?
Khi nào tàu khởi hành?
Ai đã viết cuốn sách này?
Tại sao nước sông cao như vậy?
Bánh mì giá bao nhiêu?
Chim ăn gì vào mùa đông?
Thư viện ở cạnh nhà ga.
Tàu khởi hành lúc tám giờ sáng.
Chị tôi đã viết cuốn sách này năm ngoái.
Trời mưa cả tuần nên nước sông cao.
Bánh mì giá hai đồng xu ở chợ.
Vào mùa đông chim ăn hạt và quả mọng.""",
    "yo": """
Níbo ni ilé ìkàwé wà?
Nígbà wo ni ọkọ̀ ojú irin máa lọ?
Ta ni ó kọ ìwé yìí?
Kí ló dé tí odò fi kún?
Èló ni búrẹ́dì?
Kí ni àwọn ẹyẹ máa ń jẹ nígbà òtútù?
Ilé ìkàwé wà lẹ́gbẹ̀ẹ́ ibùdókọ̀.
Ọkọ̀ ojú irin máa lọ ní aago mẹ́jọ àárọ̀.
Ẹ̀gbọ́n mi obìnrin ni ó kọ ìwé yìí ní ọdún tó kọjá.
Òjò rọ̀ ní gbogbo ọ̀sẹ̀, nítorí náà odò kún.
Owó méjì ni búrẹ́dì ní ọjà.
Nígbà òtútù àwọn ẹyẹ máa ń jẹ irúgbìn àti èso.""",
    "zh": """
图书馆在哪里？
火车什么时候开？
这本书是谁写的？
河水为什么这么高？
面包多少钱？
鸟在冬天吃什么？
图书馆在车站旁边。
火车早上八点开。
我姐姐去年写了这本书。
下了一个星期的雨，所以河水很高。
面包在市场上卖两个硬币。
冬天鸟吃种子和浆果。""",
    "zh-Hant": """
圖書館在哪裡？
火車什麼時候開？
這本書是誰寫的？
河水為什麼這麼高？
麵包多少錢？
鳥在冬天吃什麼？
圖書館在車站旁邊。
火車早上八點開。
我姐姐去年寫了這本書。
下了一個星期的雨，所以河水很高。
麵包在市場上賣兩個硬幣。
冬天鳥吃種子和漿果。""",
    "gu": """
પુસ્તકાલય સ્ટેશનની બાજુમાં છે.
ટ્રેન સવારે આઠ વાગ્યે ઉપડે છે.
મારી બહેને ગયા વર્ષે આ પુસ્તક લખ્યું.
આખું અઠવાડિયું વરસાદ પડ્યો, તેથી નદી ઊંચી છે.
બજારમાં રોટલીની કિંમત બે સિક્કા છે.
શિયાળામાં પક્ષીઓ બીજ અને ફળ ખાય છે.""",
    "hy": """
Գրադարանը կայարանի կողքին է։
Գնացքը մեկնում է առավոտյան ժամը ութին։
Քույրս այս գիրքը գրել է անցյալ տարի։
Ամբողջ շաբաթ անձրև եկավ, և գետը բարձր է։
Հացը շուկայում երկու մետաղադրամ արժե։
Ձմռանը թռչունները սերմեր և հատապտուղներ են ուտում։""",
    "kk": """
Кітапхана вокзалдың жанында.
Пойыз таңғы сегізде жүреді.
Әпкем бұл кітапты былтыр жазды.
Апта бойы жаңбыр жауды, сондықтан өзен көтерілді.
Нан базарда екі тиын тұрады.
Қыста құстар тұқым мен жидек жейді.""",
    "mr": """
ग्रंथालय स्थानकाच्या शेजारी आहे.
गाडी सकाळी आठ वाजता सुटते.
माझ्या बहिणीने हे पुस्तक गेल्या वर्षी लिहिले.
आठवडाभर पाऊस पडला, म्हणून नदी भरली आहे.
बाजारात भाकरीची किंमत दोन नाणी आहे.
हिवाळ्यात पक्षी बिया आणि फळे खातात.""",
    "my": """
စာကြည့်တိုက်သည် ဘူတာရုံဘေးတွင် ရှိသည်။
ရထားသည် မနက်ရှစ်နာရီတွင် ထွက်သည်။
ကျွန်ုပ်၏အစ်မသည် ဤစာအုပ်ကို မနှစ်က ရေးခဲ့သည်။
တစ်ပတ်လုံး မိုးရွာသဖြင့် မြစ်ရေမြင့်သည်။
ပေါင်မုန့်သည် ဈေးတွင် ဒင်္ဂါးနှစ်ပြား ကျသည်။
ဆောင်းရာသီတွင် ငှက်များသည် အစေ့နှင့် အသီးများ စားသည်။""",
    "sr": """
Biblioteka je pored stanice.
Voz polazi u osam ujutru.
Moja sestra je prošle godine napisala ovu knjigu.
Cele nedelje je padala kiša, pa je reka visoka.
Hleb na pijaci košta dva novčića.
Ptice zimi jedu semenke i bobice.""",
    "ur": """
کتب خانہ اسٹیشن کے پاس ہے۔
ریل گاڑی صبح آٹھ بجے چلتی ہے۔
میری بہن نے یہ کتاب پچھلے سال لکھی۔
پورا ہفتہ بارش ہوئی، اس لیے دریا اونچا ہے۔
بازار میں روٹی کی قیمت دو سکے ہے۔
سردیوں میں پرندے بیج اور پھل کھاتے ہیں۔""",
}

# Good morning / Thank you
GREETINGS = {
    "af": ("Goeie môre", "Dankie"),
    "ast": ("Bonos díes", "Gracies"),
    "az": ("Sabahınız xeyir", "Təşəkkür edirəm"),
    "be": ("Добрай раніцы", "Дзякуй"),
    "br": ("Demat deoc'h", "Trugarez"),
    "ca": ("Bon dia", "Gràcies"),
    "ceb": ("Maayong buntag", "Salamat"),
    "eo": ("Bonan matenon", "Dankon"),
    "et": ("Tere hommikust", "Aitäh"),
    "eu": ("Egun on", "Eskerrik asko"),
    "fy": ("Goeie moarn", "Tige dank"),
    "ga": ("Maidin mhaith", "Go raibh maith agat"),
    "gd": ("Madainn mhath", "Tapadh leat"),
    "gl": ("Bos días", "Grazas"),
    "ha": ("Barka da safiya", "Na gode"),
    "hr": ("Dobro jutro", "Hvala"),
    "ig": ("Ụtụtụ ọma", "Daalụ"),
    "ilo": ("Naimbag a bigat", "Agyamanak"),
    "is": ("Góðan daginn", "Takk fyrir"),
    "jv": ("Sugeng enjing", "Matur nuwun"),
    "la": ("Bonum mane", "Gratias tibi ago"),
    "lb": ("Gudde Moien", "Merci"),
    "lt": ("Labas rytas", "Ačiū"),
    "lv": ("Labrīt", "Paldies"),
    "mg": ("Manao ahoana", "Misaotra"),
    "mk": ("Добро утро", "Благодарам"),
    "ml": ("സുപ്രഭാതം", "നന്ദി"),
    "ne": ("शुभ प्रभात", "धन्यवाद"),
    "oc": ("Bonjorn", "Mercés"),
    "or": ("ଶୁଭ ସକାଳ", "ଧନ୍ୟବାଦ"),
    "sd": ("صبح بخير", "مهرباني"),
    "si": ("සුබ උදෑසනක්", "ස්තූතියි"),
    "sk": ("Dobré ráno", "Ďakujem"),
    "sl": ("Dobro jutro", "Hvala lepa"),
    "so": ("Subax wanaagsan", "Mahadsanid"),
    "sq": ("Mirëmëngjes", "Faleminderit"),
    "su": ("Wilujeng enjing", "Hatur nuhun"),
    "tl": ("Magandang umaga", "Salamat po"),
    "xh": ("Molo kusasa", "Enkosi"),
    "yi": ("גוט מאָרגן", "אַ דאַנק"),
}
ENGLISH_GREETINGS = ("Good morning", "Thank you")

WITHOUT_SPACES = ("ja", "zh", "zh-Hant")


def sentences(language: str) -> list[str]:
    return TEXTS[language].strip().split("\n")


def questions(language: str) -> list[str]:
    """Six questions; none of a language that has the answers alone."""
    return sentences(language)[:-6]


def answers(language: str) -> list[str]:
    return sentences(language)[-6:]


def joined(language: str, parts: list[str]) -> str:
    return ("" if language in WITHOUT_SPACES else " ").join(parts)


def passage(language: str, topics: tuple[int, ...]) -> str:
    """The answers to some of the six questions, one after the other."""
    return joined(language, [answers(language)[topic] for topic in topics])


# Sentences of training text are two answers, passages are four, documents of test collections are three: none is the
# other unless it is meant to be.
PAIRS, TRIPLES, FOURS = (list(permutations(range(6), size)) for size in (2, 3, 4))
