// Text to token ids: the twin of runtimes/text.py.
import { bertNormalizer, bertWords } from "./bert.js";
import { ENTITIES } from "./entities.js";
import { bundleError, firstLine } from "./errors.js";

const BROKEN_ENTITY = /&?#(\p{Nd}{2,5});/gu;
const TAG = /<!--|-->|<(\/?)([a-zA-Z][a-zA-Z0-9]*)[^<>]*>/g;
const HIDDEN = ["script", "style"];
const LONE_SURROGATE = /[\ud800-\udfff]/gu;
const BLANK = /[\x00-\x20\x7f-\xa0\u1680\u2000-\u200b\u2028\u2029\u202f\u205f\u3000\ufeff]+/g;
const REFERENCE = /&(#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[^\t\n\f <&#;]{1,32};?)/gu;
// What the numbers 0x80 to 0x9f mean: windows-1252, as HTML5 has it; a gap stays the number itself.
const WINDOWS = "€\x81‚ƒ„…†‡ˆ‰Š‹Œ\x8dŽ\x8f\x90‘’“”•–—˜™š›œ\x9džŸ";

/** Plain text: entities decoded, tags, scripts and comments dropped, NFC, white space folded. */
export function clean(text) {
  text = unescape(text.replace(BROKEN_ENTITY, "&#$1;"));
  if (text.includes("<")) text = withoutTags(text);
  text = text.replace(LONE_SURROGATE, "\ufffd").normalize("NFC");
  return text.replace(BLANK, " ").replace(/^ | $/g, "");
}

/** Text outside of tags. What an unclosed script, style or comment hides stays hidden, as in a browser. */
function withoutTags(text) {
  const kept = [];
  let start = 0;
  let hiddenBy = "";
  for (const tag of text.matchAll(TAG)) {
    const end = tag.index + tag[0].length;
    const name = (tag[2] ?? "").toLowerCase();
    if (hiddenBy) {
      const over = hiddenBy === "<!--" ? tag[0] === "-->" : tag[1] && name === hiddenBy;
      if (over) [hiddenBy, start] = ["", end];
      continue;
    }
    if (tag[0] === "-->") continue;
    kept.push(text.slice(start, tag.index));
    start = end;
    if (tag[0] === "<!--" || (HIDDEN.includes(name) && !tag[1])) hiddenBy = name || "<!--";
  }
  if (!hiddenBy) kept.push(text.slice(start));
  return kept.join(" ");
}

/** Character references decoded as Python's html.unescape does it. */
function unescape(text) {
  return text.includes("&") ? text.replace(REFERENCE, (_, name) => decoded(name)) : text;
}

function decoded(name) {
  if (name[0] === "#") return numbered(name);
  if (Object.hasOwn(ENTITIES, name)) return ENTITIES[name];
  for (let end = name.length - 1; end > 1; end--) {
    const head = name.slice(0, end);
    if (Object.hasOwn(ENTITIES, head)) return ENTITIES[head] + name.slice(end);
  }
  return `&${name}`;
}

function numbered(name) {
  const hexadecimal = name[1] === "x" || name[1] === "X";
  const code = hexadecimal ? parseInt(name.slice(2), 16) : parseInt(name.slice(1), 10);
  if (code === 0) return "\ufffd";
  if (code === 0x0d) return "\r";
  if (code >= 0x80 && code <= 0x9f) return WINDOWS[code - 0x80];
  if ((code >= 0xd800 && code <= 0xdfff) || code > 0x10ffff) return "\ufffd";
  return means(code) ? String.fromCodePoint(code) : "";
}

/** Control characters and non-characters mean nothing in HTML. */
function means(code) {
  if ((code >= 0x1 && code <= 0x8) || code === 0xb || (code >= 0xe && code <= 0x1f) || code === 0x7f) return false;
  return !((code >= 0xfdd0 && code <= 0xfdef) || (code & 0xfffe) === 0xfffe);
}

/** The first `most` characters (code points, as Python counts them). */
export function head(text, most) {
  if (text.length <= most) return text;
  let end = 0;
  for (let count = 0; count < most && end < text.length; count++) end += text.codePointAt(end) > 0xffff ? 2 : 1;
  return text.slice(0, end);
}

/** A tokenizer.json with the project's cleaning in front and truncation to `maxTokens`. */
export class Tokenizer {
  /** `engine`: the module of the package @huggingface/tokenizers. Throws BundleError where it is no tokenizer. */
  constructor(engine, json, maxTokens) {
    try {
      this.inner = new engine.Tokenizer(json, {});
      if (json.normalizer?.type === "BertNormalizer") this.inner.normalizer = bertNormalizer(json.normalizer);
      if (json.pre_tokenizer?.type === "BertPreTokenizer") this.inner.pre_tokenizer = bertWords;
      this.specialTokens = this.inner.encode("").ids.length;
    } catch (error) {
      throw bundleError(`tokenizer.json: not a tokenizer that the browser reads (${firstLine(error)}); pack the bundle again`);
    }
    this.maxTokens = maxTokens;
    this.padId = this.inner.token_to_id("[PAD]") ?? 0;
  }

  /** Token ids of one text, special tokens added, at most `maxTokens`. */
  encode(text) {
    const words = this.inner.tokenize(clean(text)).slice(0, Math.max(this.maxTokens - this.specialTokens, 0));
    const tokens = this.inner.post_processor ? this.inner.post_processor(words, null, true).tokens : words;
    return tokens.map((token) => this.inner.token_to_id(token) ?? this.inner.model.unk_token_id);
  }
}
