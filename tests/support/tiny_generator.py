"""Language models of 2 layers and 32 dimensions with random weights: the Llama family and GPT-2."""

import json
from pathlib import Path

TEXT = "the a cat dog bird fish sees likes eats finds small big red blue in on house tree river and"
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
    "'<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def byte_level(folder: Path, template: bool = True) -> int:
    """tokenizer.json: special tokens, all bytes and some words; gives the size of its vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=SPECIAL, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator([TEXT] * 3, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": SPECIAL[1], "eos_token": SPECIAL[2]}
    config |= {"pad_token": SPECIAL[2], "unk_token": SPECIAL[0], "clean_up_tokenization_spaces": False}
    if template:
        config["chat_template"] = TEMPLATE
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return int(tokenizer.get_vocab_size())


def make_generator(folder: Path, family: str = "llama", template: bool = True, positions: int = 128) -> Path:
    """A folder that `from_pretrained` opens; weights follow from a fixed seed."""
    import torch
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    size = byte_level(folder, template)
    torch.manual_seed(0)
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    if family == "llama":
        llama = transformers.LlamaConfig(
            vocab_size=size, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=positions, tie_word_embeddings=True,
            initializer_range=0.15, **ends,
        )  # fmt: skip
        transformers.LlamaForCausalLM(llama).save_pretrained(folder)
        return folder
    gpt2 = transformers.GPT2Config(
        vocab_size=size, n_embd=32, n_layer=2, n_head=4, n_positions=positions, initializer_range=0.15, **ends
    )
    transformers.GPT2LMHeadModel(gpt2).save_pretrained(folder)
    return folder
