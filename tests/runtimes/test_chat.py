"""Chat templates: plain data renders what Jinja renders, as transformers does it; conversations remember."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_generator import TEMPLATE
from tiny_lm import LIMITS

from export.template import compile_template, template_source
from runtimes.chat import check_template, parts, render
from runtimes.errors import InputError
from runtimes.load import load

TURNS = (
    "{{% for m in messages %}}{{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}}"
    "{{{{ raise_exception('must alternate') }}}}{{% endif %}}{0}{{% endfor %}}"
)
SMOL = (
    "{% for m in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA = (
    "{% for m in messages %}{% set content = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n'"
    "+ m['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
    "{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}\n{% if m['role'] == 'user' %}\n{{ '<|user|>\n' + m['content'] + eos_token }}\n"
    "{% elif m['role'] == 'system' %}\n{{ '<|system|>\n' + m['content'] + eos_token }}\n"
    "{% elif m['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + m['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    + TURNS.format(
        "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' + "
        "m['content'] | trim + '<end_of_turn>\n' }}"
    )
    + "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
# The system's text goes into the first message of the user.
GEMMA_3 = (
    "{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}{%- set first = messages[0]['content'] + "
    "'\n\n' -%}{%- set said = messages[1:] -%}{%- else -%}{%- set first = '' -%}{%- set said = messages -%}"
    "{%- endif -%}{%- for m in said -%}{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}"
    "{{ raise_exception('x') }}{%- endif -%}{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else "
    "'user') + '\n' + (first if loop.first else '') }}{{ m['content'] | trim }}{{ '<end_of_turn>\n' }}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{'<start_of_turn>model\n'}}{%- endif -%}"
)
PHI = (
    "{% for m in messages %}{{'<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
MISTRAL = "{{ bos_token }}" + TURNS.format(
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}{% else %}"
    "{{ m['content'] + eos_token}}{% endif %}"
)
FITTING = {"smollm2": SMOL, "chatml": TEMPLATE, "llama3": LLAMA, "zephyr": ZEPHYR, "gemma": GEMMA,
           "gemma3": GEMMA_3, "phi": PHI, "mistral": MISTRAL}  # fmt: skip
OTHERS = {
    "date": ("{{ strftime_now('%d %B') }}" + TEMPLATE, "depends on the date"),
    "numbered": (
        "{% for m in messages %}{{ loop.index }} {{ m['content'] }}{% endfor %}",
        "treated otherwise than the next",
    ),
    "last": ("{{ messages[-1]['content'] }}", "left out or moved"),
    "changes texts": (
        TEMPLATE.replace("message['content']", "message['content'] | replace('</s>', '')"),
        "proof",
    ),
    "thinks": (TEMPLATE.replace("message['content']", "message['content'].split('</think>')[-1]"), "proof"),
    "none": ("{% for x in %}", "no Jinja template"),
    "loops": ("{% for n in range(99999) %}x{% endfor %}", "loops too long"),
    "loops in loops": (
        "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}"
        "{% endfor %}{% endfor %}",
        "loops too long",
    ),
    "loops over texts": (
        f"{{% set s = '{'x' * 9_999}' %}}{{% for a in s %}}{{% for b in s %}}{{% endfor %}}{{% endfor %}}",
        "loops too long",
    ),
    "powers": ("{{ 10 ** 10 ** 10 }}", "computes too much"),
    "long": ("{{ 'x' * 10000000000 }}", "computes too much"),
    "escapes": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "left out or moved|it fails"),
    "reads no texts": ("hello", "left out or moved"),
}


def transformers_text(source, messages, prompt):
    from transformers.utils.chat_template_utils import render_jinja_template

    told, _ = render_jinja_template(
        conversations=[messages],
        chat_template=source,
        add_generation_prompt=prompt,
        bos_token="<s>",
        eos_token="</s>",
    )
    return told[0]


@pytest.mark.parametrize("name", FITTING)
@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_plain_data_renders_what_transformers_renders(name, data):
    template = TEMPLATES.setdefault(name, compile_template(FITTING[name], "<s>", "</s>"))
    count = data.draw(st.integers(1, 6))
    roles = [("user", "assistant")[number % 2] for number in range(count)]
    if template["system"] is not None and data.draw(st.booleans()):
        roles = ["system", *roles]
    messages = [{"role": role, "content": data.draw(st.text(max_size=12))} for role in roles]
    prompt = data.draw(st.booleans())
    assert render(template, messages, prompt) == transformers_text(FITTING[name], messages, prompt)


TEMPLATES: dict = {}


def test_what_the_data_says():
    made = compile_template(SMOL, "<|im_start|>", "<|im_end|>")
    assert made["start"].startswith("<|im_start|>system\nYou are") and not made["alternate"]
    assert made["before"] == {"user": "<|im_start|>user\n", "assistant": "<|im_start|>assistant\n"}
    assert json.loads(json.dumps(made)) == made
    gemma = compile_template(GEMMA, "<s>", "</s>")
    assert gemma["system"] is None and gemma["alternate"] and gemma["trim"] == ["user", "assistant"]


@pytest.mark.parametrize("name", OTHERS)
def test_another_template_is_refused_in_one_line(name):
    source, told = OTHERS[name]
    with pytest.raises(InputError, match=told) as refused:
        compile_template(source, "<s>", "</s>")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "messages", "told"),
    [
        ("gemma", ["system", "user"], "takes no system message"),
        ("gemma", ["user", "user"], "in turn, the user first"),
        ("gemma", ["assistant"], "in turn, the user first"),
        ("smollm2", ["system"], "a user message must follow"),
        ("smollm2", ["user", "system"], "must be the first one"),
        ("smollm2", [], "a list of 1 to"),
        ("smollm2", ["robot"], "message 1: needs a role"),
    ],
)
def test_messages_that_a_model_does_not_take_are_told(name, messages, told):
    with pytest.raises(InputError, match=told):
        render(compile_template(FITTING[name]), [{"role": role, "content": "x"} for role in messages])


def test_parts_tell_data_from_marks():
    told = parts(compile_template(SMOL), [{"role": "user", "content": "hi"}])
    assert [text for text, data in told if data] == ["hi"]


KEYS = st.sampled_from(["start", "system", "before", "after", "prompt", "end", "trim", "alternate", "user"])
PLAIN = st.none() | st.booleans() | st.text() | st.integers()


@given(st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=8))
def test_data_of_another_form_is_refused(value):
    with pytest.raises(ValueError):
        check_template(value)


def test_the_template_of_a_folder(tmp_path):
    assert template_source(tmp_path) is None
    config = {"bos_token": {"content": "<s>"}, "eos_token": "</s>", "chat_template": [
        {"name": "tools", "template": "no"}, {"name": "default", "template": TEMPLATE}]}  # fmt: skip
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert template_source(tmp_path) == (TEMPLATE, "<s>", "</s>")
    (tmp_path / "chat_template.jinja").write_text(SMOL)
    assert template_source(tmp_path) == (SMOL, "<s>", "</s>")
    (tmp_path / "tokenizer_config.json").write_text("[")
    with pytest.raises(InputError, match="cannot be read"):
        template_source(tmp_path)


@pytest.fixture(scope="module")
def model(lm_bundles):
    return load(lm_bundles["llama"], threads=1)


def test_a_conversation_says_what_the_messages_alone_would(model):
    talk = model.chat("big", max_new_tokens=8, temperature=1.0, seed=4)
    for text in ("the cat", "a dog sees", "fish"):
        before = [*talk.messages, {"role": "user", "content": text}]
        stream = talk.say(text)
        said = "".join(stream)
        assert said == model(before, max_new_tokens=8, temperature=1.0, seed=4).text
        if said:
            assert talk.messages == [*before, {"role": "assistant", "content": said}]
    assert talk.messages[0] == {"role": "system", "content": "big"} and not talk.forgotten
    talk.reset()
    assert talk.messages == []


def test_a_conversation_reads_only_what_is_new(model, monkeypatch):
    talk = model.chat(max_new_tokens=4, temperature=1.0, seed=4)
    list(talk.say("the cat sees a dog"))
    read = []
    cache = type(talk._cache)
    real = cache.forward
    monkeypatch.setattr(cache, "forward", lambda self, ids, every=False: (
        read.append(ids.shape[1]), real(self, ids, every))[1])  # fmt: skip
    list(talk.say("fish"))
    whole = len(model.encode(talk.messages))
    assert read[0] < whole - 15  # the first question and its answer were there already


def test_a_conversation_forgets_its_oldest_when_the_context_is_full(model):
    talk = model.chat("big", max_new_tokens=10, temperature=1.0, seed=4)
    for number in range(12):
        list(talk.say(f"the cat sees a dog {number}"))
        told = parts(model.generation["template"], talk.messages, prompt=False)
        assert len(model.codec.encode_parts(told)) <= LIMITS["max_tokens"]
    assert talk.forgotten and talk.messages[0]["content"] == "big"
    before = talk.messages
    with pytest.raises(InputError, match="over the 191"):
        talk.say("a dog " * 100)
    assert talk.messages == before


def test_an_answer_that_was_stopped_stays_as_far_as_it_came(model):
    talk = model.chat(max_new_tokens=60, temperature=1.0, seed=1)
    stream = talk.say("the cat")
    first = next(stream)
    stream.cancel()
    rest = "".join(stream)
    assert talk.messages[-1] == {"role": "assistant", "content": first + rest}
    talk.reset()
    talk.say("the cat").cancel()
    assert talk.messages == []  # nothing was answered


def test_messages_can_be_read_while_an_answer_comes(model):
    how = {"max_new_tokens": 30, "temperature": 1.0, "seed": 1}
    talk = model.chat(**how)
    stream = talk.say("the cat")
    assert talk.messages == []
    told = next(stream)
    assert talk.messages[-1] == {"role": "assistant", "content": told}
    rest = "".join(stream)
    whole = model([{"role": "user", "content": "the cat"}], **how)
    assert rest and told + rest == whole.text == talk.messages[-1]["content"]
    assert stream.result.finish == whole.finish


def test_a_model_without_template_or_system_does_not_converse(model):
    from runtimes.tasks.generate import Generator

    def saying(template):
        generation = model.generation | {"template": template}
        return Generator(model._decoder, model.codec, model.limits, generation, {})

    with pytest.raises(InputError, match="no chat template"):
        saying(None).chat()
    with pytest.raises(InputError, match="takes no system message"):
        saying(compile_template(GEMMA)).chat("big")


def test_an_answer_that_slid_leaves_no_false_cache_behind(lm_bundles):
    model = load(lm_bundles["llama"], threads=1)
    how = {"max_new_tokens": 250, "temperature": 1.0, "seed": 4}
    model.generation = {**model.generation, "eos": []}
    model._eos = frozenset()
    talk = model.chat(overflow="slide", **how)
    first = talk.say("the cat")
    assert list(first) and len(first.result.tokens) == 250
    second = talk.say("a dog")
    list(second)
    ids = model.encode(talk.messages[:-1])
    fresh = model.answer(ids, model.options(overflow="slide", **how), model.begin())
    list(fresh)
    assert second.result == fresh.result
