"""Trains the letters model: GPT-2 with two layers on random letters that repeat, so that it learns induction.

    python -m venv env && env/bin/pip install torch transformers safetensors
    env/bin/python train.py FOLDER [STEPS]

It writes `config.json`, `model.safetensors` and `tokenizer.json` into FOLDER. About five minutes on two cores.
"""
import json, os, random, sys, torch
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel

BOS = "<|endoftext|>"
SYMBOLS = [chr(code) for start, end in (("A", "Z"), ("a", "z"), ("0", "9")) for code in range(ord(start), ord(end) + 1)]
N_CTX, BATCH = 96, 64


def batch(rng):
    """Rows of `N_CTX` tokens: the beginning-of-sequence token, and random symbols that repeat after a random number of them."""
    rows = []
    for _ in range(BATCH):
        length = rng.randint(4, 45)
        block = [rng.randrange(len(SYMBOLS)) for _ in range(length)]
        rows.append(([len(SYMBOLS)] + block * (N_CTX // length + 1))[:N_CTX])
    return torch.tensor(rows)


def tokenizer():
    """Each symbol is a token, as GPT-2's byte-level tokenizer would write a vocabulary without merges."""
    vocab = {symbol: index for index, symbol in enumerate(SYMBOLS + [BOS])}
    special = {"id": len(SYMBOLS), "content": BOS, "special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [special], "normalizer": None, "pre_tokenizer": byte_level,
            "post_processor": None, "decoder": byte_level, "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False, "vocab": vocab, "merges": []}}


def main(folder, steps):
    torch.manual_seed(0)
    rng = random.Random(0)
    config = GPT2Config(vocab_size=len(SYMBOLS) + 1, n_positions=N_CTX, n_embd=64, n_layer=2, n_head=4, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
                        bos_token_id=len(SYMBOLS), eos_token_id=len(SYMBOLS))
    model = GPT2LMHeadModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.05)
    for step in range(steps):
        tokens = batch(rng)
        loss = model(tokens, labels=tokens).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 250 == 0 or step == steps - 1:
            print(step, round(loss.item(), 4), flush=True)
    os.makedirs(folder, exist_ok=True)
    names = ("activation_function", "bos_token_id", "eos_token_id", "layer_norm_epsilon", "model_type", "n_embd", "n_head", "n_layer", "n_positions", "vocab_size")
    settings = {name: getattr(config, name) for name in names} | {"architectures": ["GPT2LMHeadModel"], "n_ctx": N_CTX}
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(settings, file, indent=2, sort_keys=True)
    with open(os.path.join(folder, "tokenizer.json"), "w") as file:
        json.dump(tokenizer(), file)
    state = {name.removeprefix("transformer."): value.half().contiguous() for name, value in model.state_dict().items()
             if name != "lm_head.weight" and not name.endswith((".attn.bias", ".attn.masked_bias"))}
    save_file(state, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 2500)
