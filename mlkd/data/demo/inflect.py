"""Surface forms of lexicon entries: articles, agreement, elision and fusion."""

from __future__ import annotations

import re

from mlkd.data.demo.turkish import attach, decline

Form = tuple[str, ...]

DE_GENDERS = "mfnp"
DE_THE = {
    "nom": ("der", "die", "das", "die"),
    "acc": ("den", "die", "das", "die"),
    "dat": ("dem", "der", "dem", "den"),
    "gen": ("des", "der", "des", "der"),
}
DE_EIN = {
    "nom": ("", "e", "", "e"),
    "acc": ("en", "e", "", "e"),
    "dat": ("em", "er", "em", "en"),
    "gen": ("es", "er", "es", "er"),
}
DE_DIES = {
    "nom": ("er", "e", "es", "e"),
    "acc": ("en", "e", "es", "e"),
    "dat": ("em", "er", "em", "en"),
    "gen": ("es", "er", "es", "er"),
}
DE_WEAK = {
    "nom": ("e", "e", "e", "en"),
    "acc": ("en", "e", "e", "en"),
    "dat": ("en", "en", "en", "en"),
    "gen": ("en", "en", "en", "en"),
}
DE_MIXED = {**DE_WEAK, "nom": ("er", "e", "es", "en"), "acc": ("en", "e", "es", "en")}
DE_EIN_WORDS = {"a": "ein", "my": "mein", "your": "Ihr", "our": "unser"}
DE_FUSED = {
    "zu dem": "zum",
    "zu der": "zur",
    "bei dem": "beim",
    "in dem": "im",
    "an dem": "am",
    "in das": "ins",
}
DE_PREPOSITIONS = ("zu", "bei", "in", "an")
ROMANCE = {
    "fr": {
        "the": ("le", "la", "les", "les"),
        "a": ("un", "une", "des", "des"),
        "my": ("mon", "ma", "mes", "mes"),
        "your": ("votre", "votre", "vos", "vos"),
        "our": ("notre", "notre", "nos", "nos"),
        "this": ("ce", "cette", "ces", "ces"),
    },
    "es": {
        "the": ("el", "la", "los", "las"),
        "a": ("un", "una", "unos", "unas"),
        "my": ("mi", "mi", "mis", "mis"),
        "your": ("su", "su", "sus", "sus"),
        "our": ("nuestro", "nuestra", "nuestros", "nuestras"),
        "this": ("este", "esta", "estos", "estas"),
    },
}
FR_BEFORE_VOWEL = {"le": "l'", "la": "l'", "ma": "mon", "ce": "cet", "de": "d'"}
FUSED = {
    "fr": {"de le": "du", "de les": "des", "à le": "au", "à les": "aux"},
    "es": {"de el": "del", "a el": "al"},
}
PREPOSITIONS = {"fr": {"of": "de", "to": "à"}, "es": {"of": "de", "to": "a"}}


def vowel_sound(phrase: str) -> bool:
    """Whether a French phrase starts with a vowel sound (``*`` marks an aspirated h)."""
    return re.match(r"[aeiouàâéèêëîïôûhœ]", phrase, re.IGNORECASE) is not None


def gender(cell: str) -> str:
    """The gender letter of a noun cell such as ``f Lampe/Lampen``."""
    return cell[0]


def english(noun: str, form: Form, adjective: str) -> str:
    """An English noun phrase; the forms are ``a`` and ``pl``."""
    singular, _, plural = noun.partition("/")
    word = (plural or singular + "s") if "pl" in form else singular
    phrase = f"{adjective} {word}".strip()
    article = "an " if re.match(r"[aeio]|u(?!ni|s)|hour", phrase) else "a "
    return article + phrase if "a" in form else phrase


def german(noun: str, form: Form, adjective: str) -> str:
    """A German noun phrase: determiner, case and fused preposition; nominative by default."""
    singular, _, plural = noun[2:].partition("/")
    singular, _, oblique = singular.partition(">")
    preposition = next((sign for sign in form if sign in DE_PREPOSITIONS), "")
    case = next((sign for sign in form if sign in DE_THE), "dat" if preposition else "nom")
    column = DE_GENDERS.index("p" if "pl" in form else gender(noun))
    word = oblique if oblique and case != "nom" else singular
    if case == "gen" and gender(noun) != "f" and not oblique:
        word += "es" if word.endswith(("s", "ß", "x", "z", "sch")) else "s"
    if "pl" in form:
        word = plural + ("n" if case == "dat" and plural[-1] not in "ns" else "")
    determiner, endings = "", DE_DIES
    for sign in form:
        if sign == "the":
            determiner, endings = DE_THE[case][column], DE_WEAK
        elif sign in DE_EIN_WORDS:
            determiner, endings = DE_EIN_WORDS[sign] + DE_EIN[case][column], DE_MIXED
        elif sign == "this":
            determiner, endings = "dies" + DE_DIES[case][column], DE_WEAK
    if adjective:
        adjective = adjective.rpartition("/")[2] + endings[case][column]
    head = f"{preposition} {determiner}".strip()
    return " ".join(part for part in (DE_FUSED.get(head, head), adjective, word) if part)


def romance_adjective(language: str, cell: str, feminine: bool, plural: bool) -> str:
    """A French or Spanish adjective form of a cell such as ``blanc/blanche``."""
    forms = cell.removeprefix("<").split("/")
    masculine = forms[0]
    word = forms[1] if feminine and len(forms) > 1 else masculine
    if not plural:
        return word
    if len(forms) > 3:
        return forms[3] if feminine else forms[2]
    return romance_plural(language, word)


def romance_plural(language: str, word: str) -> str:
    """The regular plural of a French or Spanish word."""
    if language == "fr":
        if word[-1] in "sxz":
            return word
        return word + ("x" if word.endswith(("eau", "eu")) else "s")
    if word.endswith("z"):
        return word[:-1] + "ces"
    return word + ("s" if word[-1] in "aeioué" else "es")


def romance(language: str, noun: str, form: Form, adjective: str) -> str:
    """A French or Spanish noun phrase: determiner, ``of`` and ``to`` with elision and fusion."""
    singular, _, plural = noun[2:].partition("/")
    feminine, many = gender(noun) == "f", "pl" in form
    phrase = (plural or romance_plural(language, singular)) if many else singular
    if adjective.startswith("<"):
        phrase = f"{romance_adjective(language, adjective, feminine, many)} {phrase}"
    elif adjective:
        phrase = f"{phrase} {romance_adjective(language, adjective, feminine, many)}"
    column = 2 * many + feminine
    articles = ROMANCE[language]
    determiner = next((articles[sign][column] for sign in form if sign in articles), "")
    prepositions = PREPOSITIONS[language]
    preposition = next((prepositions[sign] for sign in form if sign in prepositions), "")
    if language == "fr" and vowel_sound(phrase):
        if determiner in FR_BEFORE_VOWEL:
            determiner = FR_BEFORE_VOWEL[determiner]
        elif not determiner:
            preposition = FR_BEFORE_VOWEL.get(preposition, preposition)
    head = f"{preposition} {determiner}".strip()
    head = FUSED[language].get(head, head)
    if not head or head.endswith("'"):
        return head + phrase.replace("*", "")
    return f"{head} {phrase}".replace("*", "")


def agree(language: str, cell: str, noun: str, form: Form) -> str:
    """A predicative adjective: agreeing in French and Spanish, suffixed in Turkish."""
    if language in PREPOSITIONS:
        return romance_adjective(language, cell, gender(noun) == "f", "pl" in form)
    if language == "tr" and form:
        return attach(cell, form[0])
    return cell.partition("/")[0]


def by_gender(language: str, choices: str, noun: str) -> str:
    """The choice for the noun's gender: ``m|f``, in German ``m|f|n``."""
    order = "mfn" if language == "de" else "mf"
    return choices.split("|")[order.index(gender(noun))]


def noun_phrase(language: str, noun: str, form: Form, adjective: str = "") -> str:
    """A noun cell in the given form."""
    if language == "en":
        return english(noun, form, adjective)
    if language == "de":
        return german(noun, form, adjective)
    if language == "tr":
        return f"{adjective} {decline(noun, form)}".strip()
    return romance(language, noun, form, adjective)


def action(language: str, cell: str, form: Form) -> str:
    """A verb phrase: an infinitive, in Turkish a stem that takes the suffixes ``form``.

    ``~`` marks where German puts "zu", which the form ``zu`` fills in, and where Turkish puts a
    question word, which follows the suffixes in ``form``. French takes ``of`` for "de".
    """
    if language == "de":
        if "zu" in form:
            return re.sub(r"(^|(?<= ))~", "zu ", cell).replace("~", "zu")
        return cell.replace("~", "")
    if language == "fr" and "of" in form:
        return f"d'{cell}" if vowel_sound(cell) else f"de {cell}"
    if language == "tr":
        return attach(cell.replace("~", "".join(f"{word} " for word in form[1:])), form[0])
    return cell


def variant(cell: str, form: Form) -> str:
    """The numbered variant of a phrase cell ``first / second``; a lone one serves for all."""
    variants = cell.split(" / ")
    return variants[int(form[0]) if form and len(variants) > 1 else 0]
