"""GPT-2 in plain PyTorch, eager and in float32, on the GPU: the baseline of gpu_check.

    python torch.py FOLDER LENGTHS BATCHES SECONDS

Prints a line of JSON for each batch and length, and starts none after SECONDS. Results are copied to the host, as in this
project. Each time is the median of 5 runs after 2 warm-up runs.
"""

import json
import math
import statistics
import struct
import sys
import time

import torch
import torch.nn.functional as F


def load_weights(folder):
    """Returns the tensors of model.safetensors on the GPU, by name."""
    with open(f"{folder}/model.safetensors", "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        data = bytearray(file.read())
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            flat = torch.frombuffer(data, dtype=torch.float32, count=(end - begin) // 4, offset=begin)
            tensors[name] = flat.reshape(entry["shape"]).cuda()
    return tensors


def blocks(w, config, tokens, qkv_layer=None):
    """Returns the residual stream after the last block, [batch, pos, d_model].

    And q, k and v of layer `qkv_layer`, each [batch, head, pos, d_head], or None.
    """
    heads, d_model = config["n_head"], config["n_embd"]
    batch, length = tokens.shape
    mask = torch.full((length, length), -math.inf, device="cuda").triu(1)
    x = w["wte.weight"][tokens] + w["wpe.weight"][:length]
    qkv_of_layer = None
    for layer in range(config["n_layer"]):
        weight = lambda name: w[f"h.{layer}.{name}"]
        y = F.layer_norm(x, (d_model,), weight("ln_1.weight"), weight("ln_1.bias"), 1e-5)
        qkv = torch.addmm(weight("attn.c_attn.bias"), y.reshape(-1, d_model), weight("attn.c_attn.weight"))
        q, k, v = (
            part.reshape(batch, length, heads, d_model // heads).transpose(1, 2) for part in qkv.split(d_model, dim=-1)
        )
        if layer == qkv_layer:
            qkv_of_layer = (q, k, v)
        pattern = (q @ k.transpose(-1, -2) / math.sqrt(d_model // heads) + mask).softmax(-1)
        z = (pattern @ v).transpose(1, 2).reshape(-1, d_model)
        x = x + torch.addmm(weight("attn.c_proj.bias"), z, weight("attn.c_proj.weight")).reshape(x.shape)
        y = F.layer_norm(x, (d_model,), weight("ln_2.weight"), weight("ln_2.bias"), 1e-5)
        hidden = torch.addmm(weight("mlp.c_fc.bias"), y.reshape(-1, d_model), weight("mlp.c_fc.weight"))
        hidden = F.gelu(hidden, approximate="tanh")
        x = x + torch.addmm(weight("mlp.c_proj.bias"), hidden, weight("mlp.c_proj.weight")).reshape(x.shape)
    return x, qkv_of_layer


def forward(w, config, tokens):
    """Returns the logits, [batch, pos, d_vocab]."""
    x, _ = blocks(w, config, tokens)
    return F.layer_norm(x, (config["n_embd"],), w["ln_f.weight"], w["ln_f.bias"], 1e-5) @ w["wte.weight"].T


def decode_layer(w, config, tokens, layer):
    """Returns a function that decodes every cell and vector of a layer's heads, and returns the best tokens.

    With the notebook's projection (W_V times the sums of W_O), in blocks of 256 MB of logits.
    """
    d_model, heads = config["n_embd"], config["n_head"]
    d_head = d_model // heads
    _, (q, k, v) = blocks(w, config, tokens, qkv_layer=layer)
    length = tokens.shape[1]
    query, key = torch.tril_indices(length, length, device="cuda")
    w_v = w[f"h.{layer}.attn.c_attn.weight"][:, 2 * d_model :].reshape(d_model, heads, d_head)
    w_o = w[f"h.{layer}.attn.c_proj.weight"].reshape(heads, d_head, d_model)
    w_u, rows = w["wte.weight"].T, (256 << 20) // (4 * config["vocab_size"])

    def one_head(head):
        p = w_v[:, head].T * w_o[head].sum(0)
        cells = (q[:, head][:, query] * k[:, head][:, key]).reshape(-1, d_head)
        c = torch.cat([cells, *(part[:, head].reshape(-1, d_head) for part in (q, k, v))])
        return torch.cat([(part @ p @ w_u).argmax(-1) for part in c.split(rows)]).cpu()

    def all_heads():
        return [one_head(head) for head in range(heads)]

    return all_heads


def median_seconds(run):
    def once():
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        return time.perf_counter() - start

    once(), once()
    return statistics.median(once() for _ in range(5))


def main():
    start = time.perf_counter()
    folder, lengths, batches, time_limit = sys.argv[1:]
    with open(f"{folder}/config.json") as file:
        config = json.load(file)
    w = load_weights(folder)
    with torch.no_grad():
        for batch in map(int, batches.split(",")):
            for length in map(int, lengths.split(",")):
                if time.perf_counter() - start > float(time_limit):
                    return
                tokens = torch.randint(config["vocab_size"], (batch, length), device="cuda")
                report = {
                    "torch": torch.__version__,
                    "batch": batch,
                    "length": length,
                    "blocks_s": median_seconds(lambda: blocks(w, config, tokens)[0].cpu()),
                    "forward_s": median_seconds(lambda: forward(w, config, tokens).cpu()),
                    "forward_on_gpu_s": median_seconds(lambda: forward(w, config, tokens)),
                }
                if batch == 1 and length <= 128:
                    report["layer_s"] = median_seconds(decode_layer(w, config, tokens, 0))
                print(json.dumps(report), flush=True)


main()
