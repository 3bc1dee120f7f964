"""Writes reference.zip: strings with the token ids of transformers' BertTokenizer, and hashes over all code points.

    python3.11 -m venv venv && venv/bin/pip install transformers==4.46.3 && venv/bin/python make.py

Python 3.11 has Unicode 14.0, which decides about letters, marks, punctuation, control characters and unassigned code
points. The calls are those of the authors: `basic_tokenizer.tokenize`, then `wordpiece_tokenizer.tokenize` on each basic
token. So special tokens that are written in a caption are text, unlike in `BertTokenizer.__call__`.
"""

import hashlib
import json
import random
import sys
import tempfile
import unicodedata
import zipfile
from pathlib import Path

import transformers
from transformers import BertTokenizer

HERE = Path(__file__).parent
COUNT = 6000
# Code points per hash, and the blocks that are compared: all that have assigned characters besides private use, and for
# settings that change one step, those with most scripts.
BLOCK = 1024
BLOCKS = [*range(0x32000 // BLOCK), 0xE0000 // BLOCK]
FEW_BLOCKS = range(24)

# Name of a setting in reference.zip, and the arguments of BertTokenizer.
SETTINGS = {
    "uncased": {},
    "cased": {"do_lower_case": False},
    "keep_accents": {"strip_accents": False},
    "cased_no_accents": {"do_lower_case": False, "strip_accents": True},
    "no_cjk": {"tokenize_chinese_chars": False},
}

WHITE_SPACE = list("\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2003\u2009\u200a\u2028\u2029\u202f\u205f\u3000")
CONTROL = list("\0\x01\x07\x08\x1b\x7f\x80\x9f\xad\u0600\u061c\u180e\u200b\u200c\u200d\u200e\u202e\u2060\u2066\ufeff\ufff9\ufffd")
CONTROL += [chr(code) for code in (0x110BD, 0x1D173, 0xE0001, 0xE0020, 0xE007F)]
MARKS = list("\u0300\u0301\u0307\u0308\u030a\u0327\u0328\u0345\u0483\u0591\u064b\u093c\u0e31\u1734\u20d0\u20dd\u302a\u3099\ufe0f\ufe20")
LATIN = list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
LETTERS = list("ÀÉÎÕÜßẞİıŁøÆœĳǅǈǲſKÅΩÿŒđŊƀȺⱥꞍ") + list("ΑΒΣσςαβάΆΐΰϒ") + list("АБЯЁёЙй") + list("ԱաևႠაᲐᏣꭳ")
CJK = list("一中国漢字鿿㐀䶿豈𠀀𪜀𫝀𫠠丽ーあァ가힣각ㄅ々〇")
PUNCTUATION = list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~¡§«¶·¿‐–—‘’“”…‧‹›⁂⁇、。「」〜！？：；") + list("\u037e\u0387\u055a\u05be\u060c\u0964\u1400\u2e52\ua874\U00010100\U0001da87")
SYMBOLS = list("€™©®°±×÷√∞≠←→■●★♥✓Ⓐⓩ①Ⅷⅷ½²ªº")
EMOJI = ["😀", "👩‍🚀", "🏳️‍🌈", "👍🏽", "🇺🇸", "☃️", "1️⃣", "🫠"]
# Assigned after Unicode 14.0, or not at all.
UNASSIGNED = [chr(code) for code in (0x378, 0x0CF3, 0x1ACF, 0x1C89, 0x20C1, 0xA7CB, 0xA7DA, 0xA7DC, 0x10D50, 0x10EFD, 0x11F00, 0x1E030, 0x1FAE8, 0x31350, 0x323AF, 0xE01F0, 0xFFFE, 0x1FFFE, 0x10FFFF)]
PRIVATE = [chr(code) for code in (0xE000, 0xF8FF, 0xF0000, 0x100000)]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[sep]", "[ MASK ]", "##s", "[unused0]"]
POOLS = [LATIN, LETTERS, MARKS, CJK, PUNCTUATION, SYMBOLS, EMOJI, UNASSIGNED, PRIVATE, SPECIAL, WHITE_SPACE, CONTROL]
WORDS = "a the dog Dog DOG runs running on grass café naïve Zürich İstanbul Straße ΟΔΟΣ ΣΑΣ Ὀδυσσεύς São résumé".split()


def vocabulary():
    """A drawn vocabulary: special tokens, words, and pieces of one and two characters."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = ["a", "the", "dog", "Dog", "run", "##s", "##ning", "##n", "on", "grass", "cafe", "café", "na", "##ive", "strasse"]
    words += ["straße", "οδος", "οδοσ", "σας", "σασ", "ΟΔΟΣ", "istanbul", "is", "##tanbul", "zur", "##ich", "sep", "mask", "SEP"]
    single = LATIN + LETTERS + CJK + PUNCTUATION + SYMBOLS + MARKS + ["i\u0307", "ᄀ", "ᅡ", "ᆨ", "ss", "\u2028", "\ue000"]
    for letter in sorted(set(single)):
        for form in (letter, letter.lower(), unicodedata.normalize("NFD", letter)):
            words += [form] + ([f"##{form}"] if form.strip() and not unicodedata.category(form[0]).startswith("P") else [])
    for token in words:
        if token not in tokens and token.strip("\r\n"):
            tokens.append(token)
    # No token may contain a line break of a text file.
    return [token for token in tokens if not set(token) & set("\r\n")]


def strings(rng):
    """COUNT different strings."""
    fixed = ["", " ", "Σ", "ΑΣ", "ΑΣ.", "ΑΣ.Β", "ΑΣ:Β", "ΑΣ'Β", "ΑΣ\u0301", "ΑΣ\u0301Β", "ΑΣ\u200bΒ", "ΑΣ\0Β", "Α Σ", "ΑΣ Σ Β", "ΣΣ", "1Σ", "ͅΣ", "aͅΣ", "ʰΣ", "ΑΣʰ", "ΑΣʰΒ"]
    fixed += ["x" * 100, "x" * 101, "é" * 100, "É" * 101, "가" * 34, "İ" * 60, "a" + "\u0301" * 300, "xyz" * 200]
    fixed += WHITE_SPACE + CONTROL + MARKS + EMOJI + UNASSIGNED + PRIVATE + SPECIAL + WORDS
    fixed += [f"a{letter}b" for pool in POOLS for letter in pool]
    seen = set()

    def assigned():
        while True:
            code = rng.choice([rng.randrange(0x3000), rng.randrange(0x20000), rng.randrange(0x110000)])
            if not 0xD800 <= code < 0xE000:
                return chr(code)

    def sigma():
        middle = "".join(rng.choice(rng.choice(POOLS)) for _ in range(rng.randrange(3)))
        return f"{rng.choice(['', 'Α', 'a', '1', '.'])}{middle}Σ{rng.choice(['', middle])}{rng.choice(['', 'Β', 'b', '2', ' '])}"

    def mixed():
        return "".join(rng.choice(rng.choice(POOLS)) for _ in range(rng.randrange(1, 12)))

    def word():
        letters = [rng.choice(LATIN + LETTERS) + rng.choice(["", "", rng.choice(MARKS)]) for _ in range(rng.randrange(1, 9))]
        return "".join(letters)

    def sentence():
        gap = rng.choice([" ", " ", "  ", rng.choice(WHITE_SPACE), rng.choice(PUNCTUATION)])
        return gap.join(rng.choice([rng.choice(WORDS), word(), rng.choice(SPECIAL)]) for _ in range(rng.randrange(1, 6)))

    def planes():
        return "".join(rng.choice([assigned(), rng.choice(LATIN)]) for _ in range(rng.randrange(1, 8)))

    makers = [sigma, mixed, word, sentence, planes]
    while len(seen) < COUNT:
        text = fixed.pop() if fixed else rng.choice(makers)()
        if text not in seen:
            seen.add(text)
            yield text


def ids(tokenizer, text):
    tokens = [piece for word in tokenizer.basic_tokenizer.tokenize(text) for piece in tokenizer.wordpiece_tokenizer.tokenize(word)]
    return tokenizer.convert_tokens_to_ids(["[CLS]", *tokens, "[SEP]"])


def probe(letter):
    """Strings that show each property of a code point: removed, white space, punctuation, mark, CJK, and both sides of a sigma."""
    return f"a{letter}b ΑΣ{letter}Α Α{letter}Σ"


def code_points(tokenizer, blocks):
    """The first 8 bytes of the SHA-256 of the basic tokens of each block of code points, each token with a trailing NUL."""
    for first in (block * BLOCK for block in blocks):
        digest = hashlib.sha256()
        for code in range(first, first + BLOCK):
            if not 0xD800 <= code < 0xE000:
                for token in tokenizer.basic_tokenizer.tokenize(probe(chr(code))):
                    digest.update(token.encode() + b"\0")
                digest.update(b"\n")
        yield digest.digest()[:8].hex()


def main():
    assert unicodedata.unidata_version == "14.0.0", unicodedata.unidata_version
    assert transformers.__version__ == "4.46.3", transformers.__version__
    words = vocabulary()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.txt"
        path.write_text("\n".join(words) + "\n", encoding="utf-8", newline="")
        tokenizers = {name: BertTokenizer(str(path), **settings) for name, settings in SETTINGS.items()}
        rows = []
        for text in strings(random.Random(17)):
            rows.append([text, ids(tokenizers["uncased"], text), ids(tokenizers["cased"], text)])
        hashes = {}
        for name, tokenizer in tokenizers.items():
            blocks = list(BLOCKS if name in ("uncased", "cased") else FEW_BLOCKS)
            hashes[name] = dict(zip(blocks, code_points(tokenizer, blocks)))
    files = {
        "vocab.txt": "\n".join(words) + "\n",
        "strings.jsonl": "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows),
        "code_points.json": json.dumps(hashes),
    }
    with zipfile.ZipFile(HERE / "reference.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, text in files.items():
            info = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, text.encode())
    print(f"{len(rows)} strings, {len(words)} tokens", file=sys.stderr)


if __name__ == "__main__":
    main()
