"""Makes a small Llama with random weights and a small tokenizer, for engines that nobody here wrote.

    make-model.py OUT_DIR

Writes OUT_DIR/tiny-llama (what Hugging Face's libraries read) and OUT_DIR/tiny-llama.gguf (what llama.cpp reads): the same shape
and tokenizer, and as large as gives prompts and tokens times that can be told from noise on two cores. What it says is nonsense; how
long it takes, how it is batched, counted, stopped and cancelled is as with any other model.
"""

import json
import pathlib
import random
import sys

import gguf
import numpy
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

LAYERS, HIDDEN, FEED_FORWARD, HEADS, KV_HEADS, CONTEXT = 6, 512, 1536, 8, 4, 4096
HEAD = HIDDEN // HEADS
VOCABULARY = 2048
BEGIN, END = "<|begin|>", "<|end|>"
SPECIAL = [BEGIN, END]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def main() -> None:
    out = pathlib.Path(sys.argv[1])
    directory = out / "tiny-llama"
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer()
    weights = random_weights()
    write_hugging_face(directory, tokenizer, weights)
    write_gguf(out / "tiny-llama.gguf", tokenizer, weights)
    parameters = sum(tensor.size for tensor in weights.values())
    print(f"{out}: {parameters / 1e6:.1f} million random weights, {tokenizer.get_vocab_size()} tokens")


def train_tokenizer() -> Tokenizer:
    """A byte-level BPE over made-up words: every text can be said, and a token may be a part of a character."""
    chance = random.Random(7)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    words = ["".join(chance.choices(syllables, k=chance.randint(1, 4))) for _ in range(4000)]
    text = [" ".join(chance.choices(words, k=40)) for _ in range(400)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        text,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
        ),
    )
    assert tokenizer.get_vocab_size() == VOCABULARY
    return tokenizer


def random_weights() -> dict[str, numpy.ndarray]:
    """By Hugging Face's names; the spread keeps activations of the size that a trained model's have."""
    chance = numpy.random.default_rng(7)

    def matrix(rows: int, columns: int) -> numpy.ndarray:
        return (chance.standard_normal((rows, columns)) * 0.02).astype(numpy.float32)

    weights = {
        "model.embed_tokens.weight": matrix(VOCABULARY, HIDDEN),
        "model.norm.weight": numpy.ones(HIDDEN, numpy.float32),
        "lm_head.weight": matrix(VOCABULARY, HIDDEN),
    }
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        weights[f"{at}.input_layernorm.weight"] = numpy.ones(HIDDEN, numpy.float32)
        weights[f"{at}.post_attention_layernorm.weight"] = numpy.ones(HIDDEN, numpy.float32)
        weights[f"{at}.self_attn.q_proj.weight"] = matrix(HIDDEN, HIDDEN)
        weights[f"{at}.self_attn.k_proj.weight"] = matrix(KV_HEADS * HEAD, HIDDEN)
        weights[f"{at}.self_attn.v_proj.weight"] = matrix(KV_HEADS * HEAD, HIDDEN)
        weights[f"{at}.self_attn.o_proj.weight"] = matrix(HIDDEN, HIDDEN)
        weights[f"{at}.mlp.gate_proj.weight"] = matrix(FEED_FORWARD, HIDDEN)
        weights[f"{at}.mlp.up_proj.weight"] = matrix(FEED_FORWARD, HIDDEN)
        weights[f"{at}.mlp.down_proj.weight"] = matrix(HIDDEN, FEED_FORWARD)
    return weights


def write_hugging_face(directory: pathlib.Path, tokenizer: Tokenizer, weights: dict[str, numpy.ndarray]) -> None:
    begin, end = tokenizer.token_to_id(BEGIN), tokenizer.token_to_id(END)
    tokenizer.save(str(directory / "tokenizer.json"))
    write_json(
        directory / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": BEGIN, "eos_token": END, "chat_template": CHAT_TEMPLATE, "model_max_length": CONTEXT},
    )
    write_json(
        directory / "config.json",
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": VOCABULARY,
            "hidden_size": HIDDEN,
            "intermediate_size": FEED_FORWARD,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": KV_HEADS,
            "max_position_embeddings": CONTEXT,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "tie_word_embeddings": False,
            "bos_token_id": begin,
            "eos_token_id": end,
            "dtype": "float32",
        },
    )
    # The server has no way to be told of a single request that its answer must not end early. What is drawn from random weights is
    # the end token once in some two thousand: rarely, as with a real model.
    write_json(directory / "generation_config.json", {"bos_token_id": begin, "eos_token_id": end, "do_sample": True})
    save_file(weights, str(directory / "model.safetensors"), metadata={"format": "pt"})


def write_gguf(path: pathlib.Path, tokenizer: Tokenizer, weights: dict[str, numpy.ndarray]) -> None:
    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("tiny-llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HEAD)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types([gguf.TokenType.CONTROL if token in SPECIAL else gguf.TokenType.NORMAL for token, _ in vocabulary])
    writer.add_token_merges([" ".join(merge) if isinstance(merge, list) else merge for merge in merges])
    writer.add_bos_token_id(tokenizer.token_to_id(BEGIN))
    writer.add_eos_token_id(tokenizer.token_to_id(END))
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    for name, tensor in weights.items():
        layer, short = None, name.removesuffix(".weight")
        if short.startswith("model.layers."):
            _, _, layer, short = short.split(".", 3)
        at = names[short] if layer is None else f"blk.{layer}.{names[short]}"
        writer.add_tensor(f"{at}.weight", tensor if tensor.ndim == 1 else tensor.astype(numpy.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_json(path: pathlib.Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
