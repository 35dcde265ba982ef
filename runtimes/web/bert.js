// BERT's normalizer and pre-tokenizer exactly as the tokenizers package does them, whatever version of
// Unicode the browser knows.
import { ACCENT, CJK, CONTROL, PUNCTUATION } from "./unicode.js";

const WHITE = "9-d 20 85 a0 1680 2000-200a 2028-2029 202f 205f 3000";
const [IS_CONTROL, IS_ACCENT, IS_CJK, IS_PUNCTUATION, IS_WHITE] = [1, 2, 4, 8, 16];

let flags;

function flagsOf(code) {
  flags ??= readTables();
  return flags[code];
}

function readTables() {
  const table = new Uint8Array(0x110000);
  const all = [[CONTROL, IS_CONTROL], [ACCENT, IS_ACCENT], [CJK, IS_CJK], [PUNCTUATION, IS_PUNCTUATION], [WHITE, IS_WHITE]];
  for (const [ranges, flag] of all) {
    for (const range of ranges.trim().split(" ")) {
      const [start, end = start] = range.split("-").map((word) => parseInt(word, 16));
      for (let code = start; code <= end; code++) table[code] |= flag;
    }
  }
  return table;
}

/** A function text → text for the `normalizer` of a tokenizer.json of type BertNormalizer. */
export function bertNormalizer(config) {
  const strip = config.strip_accents ?? config.lowercase;
  return (text) => {
    if (config.clean_text !== false) text = cleaned(text);
    if (config.handle_chinese_chars !== false) text = spaced(text);
    if (strip) text = without(text.normalize("NFD"), IS_ACCENT);
    return config.lowercase !== false ? lowered(text) : text;
  };
}

function cleaned(text) {
  let kept = "";
  for (const char of text) {
    const found = flagsOf(char.codePointAt(0));
    if (found & IS_WHITE && char !== "\v" && char !== "\f" && char !== "\x85") kept += " ";
    else if (!(found & IS_CONTROL)) kept += char;
  }
  return kept;
}

function spaced(text) {
  let kept = "";
  for (const char of text) kept += flagsOf(char.codePointAt(0)) & IS_CJK ? ` ${char} ` : char;
  return kept;
}

function without(text, flag) {
  let kept = "";
  for (const char of text) if (!(flagsOf(char.codePointAt(0)) & flag)) kept += char;
  return kept;
}

// Character by character: a whole string would end a Greek word in a final sigma.
function lowered(text) {
  let kept = "";
  for (const char of text) kept += char.toLowerCase();
  return kept;
}

/** Words of a normalized text, each mark of punctuation a word of its own. */
export function bertWords(text) {
  const words = [];
  let word = "";
  for (const char of text) {
    const found = flagsOf(char.codePointAt(0));
    if (!(found & (IS_WHITE | IS_PUNCTUATION))) {
      word += char;
      continue;
    }
    if (word) words.push(word);
    word = "";
    if (found & IS_PUNCTUATION) words.push(char);
  }
  if (word) words.push(word);
  return words;
}
