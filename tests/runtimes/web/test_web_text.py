"""The JavaScript runtime reads texts as Python does: same cleaning, same token ids."""

import json
from typing import Any

import pytest

from runtimes.text import Tokenizer, clean

pytestmark = pytest.mark.browser
# Its decomposition is newer than the tokenizers package's tables, so browsers take it apart.
NEWER = {0x11938}


def test_the_named_characters_are_those_of_python() -> None:
    from web_tables import FOLDER, entities_js

    assert (FOLDER / "entities.js").read_text(encoding="utf-8") == entities_js()


def test_clean_is_the_same(tab: Any, corpus: list[str]) -> None:
    found = tab.evaluate("texts => texts.map(text.clean)", corpus)
    assert found == [clean(text) for text in corpus]


def test_clean_of_lone_surrogates(tab: Any) -> None:
    assert tab.evaluate(r"text.clean('a\ud800b \udc00')") == clean("a\ud800b \udc00")


def test_the_head_counts_code_points(tab: Any) -> None:
    text = "a👩b𠀀c"
    found = tab.evaluate(
        "([word, n]) => Array.from({length: n}, (_, most) => text.head(word, most))", [text, 7]
    )
    assert found == [text[:most] for most in range(7)]


@pytest.mark.parametrize(("lowercase", "step"), [(True, 1), (False, 7)])
def test_every_character_is_normalized_alike(
    tab: Any, assigned: list[int], lowercase: bool, step: int
) -> None:
    from tokenizers import normalizers

    words = [f"a{chr(code)}b" for code in assigned[::step]]
    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    ours = normalizer.normalize_str("\n".join(words)).split(" a")
    config = {"clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": lowercase}
    theirs = tab.evaluate(
        "([words, config]) => bert.bertNormalizer(config)(words.join('\\n')).split(' a')", [words, config]
    )
    assert len(ours) == len(theirs)
    different = [one for one, two in zip(ours, theirs, strict=True) if one != two]
    assert [word for word in different if not any(chr(code) in word for code in NEWER)] == []


def test_every_character_splits_words_alike(tab: Any, assigned: list[int]) -> None:
    from tokenizers import pre_tokenizers

    splitter = pre_tokenizers.BertPreTokenizer()
    text = " ".join(f"a{chr(code)}b" for code in assigned)
    ours = [word for word, _ in splitter.pre_tokenize_str(text)]
    assert tab.evaluate("words => bert.bertWords(words)", text) == ours


def wordpiece(corpus: list[str], max_tokens: int) -> tuple[str, Tokenizer]:
    """A tokenizer that knows every character of the corpus, so that no difference hides in [UNK]."""
    from tokenizers import Tokenizer as Fast
    from tokenizers import models, normalizers, pre_tokenizers, processors

    normalizer = normalizers.BertNormalizer()
    letters = sorted(set("".join(normalizer.normalize_str(clean(text)) for text in corpus)) - {" "})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokens = [*special, *letters, *(f"##{letter}" for letter in letters), "goal", "##oal", "share"]
    fast = Fast(models.WordPiece({token: at for at, token in enumerate(tokens)}, unk_token="[UNK]"))
    fast.add_special_tokens(special)
    fast.normalizer, fast.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    fast.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return fast.to_str(), Tokenizer.from_bytes(fast.to_str().encode(), max_tokens)


@pytest.mark.parametrize("max_tokens", [4, 64])
def test_ids_are_the_same(tab: Any, corpus: list[str], max_tokens: int) -> None:
    tokenizer_json, tokenizer = wordpiece(corpus, max_tokens)
    found = tab.evaluate(
        """async ([json, most, texts]) => {
          const engine = await import("./web/engines/@huggingface/tokenizers/dist/tokenizers.min.mjs");
          const tokenizer = new text.Tokenizer(engine, JSON.parse(json), most);
          return texts.map((one) => tokenizer.encode(one));
        }""",
        [tokenizer_json, max_tokens, corpus],
    )
    ours = tokenizer.encode(corpus)
    different = [(text, one, two) for text, one, two in zip(corpus, ours, found, strict=True) if one != two]
    assert different == []


def test_a_byte_level_tokenizer_gives_the_same_ids(tab: Any, corpus: list[str]) -> None:
    from tokenizers import Tokenizer as Fast
    from tokenizers import models, pre_tokenizers, trainers

    fast = Fast(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    fast.train_from_iterator(["grain exports rise", "goal in the last minute", "naïve café"], trainer)
    tokenizer_json = json.dumps(json.loads(fast.to_str()))
    found = tab.evaluate(
        """async ([json, texts]) => {
          const engine = await import("./web/engines/@huggingface/tokenizers/dist/tokenizers.min.mjs");
          const tokenizer = new text.Tokenizer(engine, JSON.parse(json), 32);
          return texts.map((one) => tokenizer.encode(one));
        }""",
        [tokenizer_json, corpus],
    )
    assert found == Tokenizer.from_bytes(tokenizer_json.encode(), 32).encode(corpus)
