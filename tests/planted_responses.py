"""Responses that follow the instructions of an IFEval prompt, made to, and ones that break them."""

import json

# The first article of the Universal Declaration of Human Rights, or its beginning.
LANGUAGES = {
    "ar": "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق",
    "bg": "Всички хора се раждат свободни и равни по достойнство и права",
    "bn": "সমস্ত মানুষ স্বাধীনভাবে সমান মর্যাদা এবং অধিকার নিয়ে জন্মগ্রহণ করে",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren",
    "fa": "تمام افراد بشر آزاد به دنیا می‌آیند و از لحاظ حیثیت و حقوق با هم برابرند",
    "fi": "Kaikki ihmiset syntyvät vapaina ja tasavertaisina arvoltaan ja oikeuksiltaan",
    "gu": "સર્વ માનવો જન્મથી સ્વતંત્ર છે અને સમાન પ્રતિષ્ઠા અને હક ધરાવે છે",
    "hi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है",
    "it": "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti",
    "kn": "ಎಲ್ಲಾ ಮಾನವರೂ ಸ್ವತಂತ್ರರಾಗಿಯೇ ಜನಿಸಿದ್ದಾರೆ ಹಾಗೂ ಘನತೆ ಮತ್ತು ಅಧಿಕಾರಗಳಲ್ಲಿ ಸಮಾನರಾಗಿದ್ದಾರೆ",
    "ko": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다",
    "mr": "सर्व मनुष्यजात जन्मतःच स्वतंत्र आहे व सर्वजणांना समान प्रतिष्ठा व समान अधिकार आहेत",
    "ne": "सबै व्यक्तिहरू जन्मजात स्वतन्त्र हुन् ती सबैको समान अधिकार र महत्व छ",
    "pa": "ਸਾਰਾ ਮਨੁੱਖੀ ਪਰਿਵਾਰ ਆਪਣੀ ਮਹਿਮਾ ਅਤੇ ਹੱਕਾਂ ਦੇ ਪੱਖੋਂ ਜਨਮ ਤੋਂ ਹੀ ਆਜ਼ਾਦ ਹੈ",
    "pt": "Todos os seres humanos nascem livres e iguais em dignidade e em direitos",
    "ru": "Все люди рождаются свободными и равными в своем достоинстве и правах",
    "sw": "Watu wote wamezaliwa huru na hadhi na haki zao ni sawa",
    "ta": "மனிதப் பிறவியினர் சகலரும் சுதந்திரமாகவே பிறக்கின்றனர்",
    "te": "ప్రతిపత్తిస్వత్వముల విషయమున మానవులెల్లరును జన్మతః స్వతంత్రులును సమానులును నగుదురు",
    "th": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
    "ur": "تمام انسان آزاد اور حقوق و عزت کے اعتبار سے برابر پیدا ہوئے ہیں",
    "vi": "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền lợi",
}

PLAIN = (
    "this is what we have to say about the question that was asked here today",
    "they gave much thought to every part before giving an answer",
    "ok",
)
PANGRAM = "the quick brown fox jumps over the lazy dog"


def plant(row):
    """A response that follows all instructions of a row of IFEval."""
    asked = _asked(row)
    text = _body(asked)
    if "repeat_prompt" in asked:
        text = f"{asked['repeat_prompt']['prompt_to_repeat']}\n{text}"
    if "two_responses" in asked:
        text = f"{text}\n******\n{text} and more"
    if "english_lowercase" in asked:
        text = text.lower()
    if "english_capital" in asked:
        text = text.upper()
    if "json_format" in asked:
        text = json.dumps({"response": text}, ensure_ascii=False)
    return f'"{text}"' if "quotation" in asked else text


def broken(row):
    """A response that breaks the first of a row's instructions."""
    name = row["instruction_id_list"][0].partition(":")[2]
    return _breaking(name, _asked(row)[name])


def _asked(row):
    """What is asked for by name; of two bounds the lower one, of keywords all."""
    asked = {}
    for name, told in zip(row["instruction_id_list"], row["kwargs"], strict=True):
        name = name.partition(":")[2]
        lower = "at least" in told.values()
        if name == "frequency" and lower:
            asked.setdefault("keywords", []).append(told)
        if name not in asked or lower:
            asked[name] = told
    return asked


def _breaking(name, told):
    if name in ("no_comma", "english_lowercase", "quotation", "json_format", "title"):
        return 'One, Two, "Three", FOUR'
    if name in ("english_capital", "end_checker", "postscript", "repeat_prompt", "two_responses"):
        return "nothing of the kind"
    if name == "forbidden_words":
        return f"well {told['forbidden_words'][0]} then"
    if name in ("number_bullet_lists", "number_highlighted_sections", "number_placeholders"):
        return "nothing of the kind"
    if name in ("existence", "constrained_response", "multiple_sections", "number_paragraphs"):
        return "0"
    if name == "nth_paragraph_first_word":
        return "0"
    if name == "response_language":
        return "This is an English text about nothing in particular."
    relation = {"frequency": "relation", "letter_frequency": "let_relation"}.get(name, "relation")
    if name == "capital_word_frequency":
        relation = "capital_relation"
    if told.get(relation) == "at least":
        return "0"
    number = next(value for value in told.values() if isinstance(value, int))
    many = {
        "number_words": "word ",
        "number_sentences": "This is one. ",
        "capital_word_frequency": "WORD ",
        "frequency": f"{told.get('keyword')} ",
        "letter_frequency": f"{told.get('letter')}",
    }
    return many[name] * number


def _body(asked):
    plain = _plain(asked)
    words, sentences = asked.get("number_words", {}), asked.get("number_sentences", {})
    if words.get("relation") == "at least":
        plain = " ".join([plain] * (words["num_words"] // len(plain.split()) + 1))
    if sentences.get("relation") == "at least":
        short = "they gave it thought" if words.get("relation") == "less than" else plain
        plain = " ".join([f"{short.capitalize()}."] * sentences["num_sentences"])
    if "nth_paragraph_first_word" in asked:
        told = asked["nth_paragraph_first_word"]
        parts = [plain] * told["num_paragraphs"]
        parts[told["nth_paragraph"] - 1] = f"{told['first_word']} {plain}"
        plain = "\n\n".join(parts)
    if "number_paragraphs" in asked:
        plain = "\n***\n".join([plain] * asked["number_paragraphs"]["num_paragraphs"])
    text = "\n".join([plain, *_lines(asked)])
    if "postscript" in asked:
        text += f"\n{asked['postscript']['postscript_marker']} that is all"
    if "end_checker" in asked:
        text += f"\n{asked['end_checker']['end_phrase']}"
    return text


def _plain(asked):
    """A sentence without its full stop that may stand anywhere."""
    if "response_language" in asked:
        return " ".join([LANGUAGES[asked["response_language"]["language"]]] * 8)
    forbidden = [
        word.lower() for word in asked.get("forbidden_words", {}).get("forbidden_words", ())
    ]
    letters = asked.get("letter_frequency", {})
    if letters.get("let_relation") == "at least" and letters["let_frequency"] > 9:
        return " ".join([PLAIN[0]] * 12)  # so that it stays English
    rare = letters.get("letter") if letters.get("let_relation") == "less than" else None
    fits = [
        text
        for text in PLAIN
        if not {*text.split()} & {*forbidden} and (rare is None or rare not in text)
    ]
    return (fits or ["ok"])[0]


def _lines(asked):
    """What is asked for by number, each a line."""
    if "constrained_response" in asked:
        yield "My answer is yes."
    if "existence" in asked:
        yield " ".join(asked["existence"]["keywords"])
    for told in asked.get("keywords", ()):
        yield " ".join([told["keyword"]] * told["frequency"])
    letters = asked.get("letter_frequency", {})
    if letters.get("let_relation") == "at least":
        letter = letters["letter"]
        each = letter if letter.isalpha() else f"{PANGRAM} "  # of no letter it draws one
        yield each * letters["let_frequency"]
    if asked.get("capital_word_frequency", {}).get("capital_relation") == "at least":
        yield " ".join(["WORD"] * asked["capital_word_frequency"]["capital_frequency"])
    if "title" in asked:
        yield "<<what we say>>"
    if "number_placeholders" in asked:
        yield " ".join(["[name]"] * asked["number_placeholders"]["num_placeholders"])
    if "number_highlighted_sections" in asked:
        count = asked["number_highlighted_sections"]["num_highlights"]
        yield "so " + " ".join(["*well*"] * count)
    if "number_bullet_lists" in asked:
        yield "\n".join(["* well"] * asked["number_bullet_lists"]["num_bullets"])
    if "multiple_sections" in asked:
        told = asked["multiple_sections"]
        yield "\n".join(f"{told['section_spliter']} {n + 1}" for n in range(told["num_sections"]))
