"""The plain mathematics of GPT-2 in PyTorch, eager and in float32, on the same card: what gpu_check is held against.

    python torch.py FOLDER LENGTHS BATCHES SECONDS

Prints a line of JSON for each length and batch that is begun within so many seconds. Everything ends on the host, as it does in
this project. A second is the median of 5 runs after 2.
"""

import json
import math
import statistics
import struct
import sys
import time

import torch
import torch.nn.functional as F


def weights(folder):
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


def blocks(w, config, tokens, keep_layer=None):
    """The residual stream behind the last block; the queries and keys and values of one layer if it is asked for."""
    heads, d_model = config["n_head"], config["n_embd"]
    batch, length = tokens.shape
    mask = torch.full((length, length), -math.inf, device="cuda").triu(1)
    x = w["wte.weight"][tokens] + w["wpe.weight"][:length]
    kept = None
    for layer in range(config["n_layer"]):
        of = lambda name: w[f"h.{layer}.{name}"]
        y = F.layer_norm(x, (d_model,), of("ln_1.weight"), of("ln_1.bias"), 1e-5)
        qkv = torch.addmm(of("attn.c_attn.bias"), y.reshape(-1, d_model), of("attn.c_attn.weight"))
        q, k, v = (
            part.reshape(batch, length, heads, d_model // heads).transpose(1, 2) for part in qkv.split(d_model, dim=-1)
        )
        if layer == keep_layer:
            kept = (q, k, v)
        pattern = (q @ k.transpose(-1, -2) / math.sqrt(d_model // heads) + mask).softmax(-1)
        z = (pattern @ v).transpose(1, 2).reshape(-1, d_model)
        x = x + torch.addmm(of("attn.c_proj.bias"), z, of("attn.c_proj.weight")).reshape(x.shape)
        y = F.layer_norm(x, (d_model,), of("ln_2.weight"), of("ln_2.bias"), 1e-5)
        hidden = torch.addmm(of("mlp.c_fc.bias"), y.reshape(-1, d_model), of("mlp.c_fc.weight"))
        hidden = F.gelu(hidden, approximate="tanh")
        x = x + torch.addmm(of("mlp.c_proj.bias"), hidden, of("mlp.c_proj.weight")).reshape(x.shape)
    return x, kept


def forward(w, config, tokens):
    x, _ = blocks(w, config, tokens)
    return F.layer_norm(x, (config["n_embd"],), w["ln_f.weight"], w["ln_f.bias"], 1e-5) @ w["wte.weight"].T


def decode_layer(w, config, tokens, layer):
    """The best token of every cell and vector of a layer's heads, through W_V times the sums of W_O, in blocks of 256 MB."""
    d_model, heads = config["n_embd"], config["n_head"]
    d_head = d_model // heads
    _, (q, k, v) = blocks(w, config, tokens, keep_layer=layer)
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


def seconds(run):
    def once():
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        return time.perf_counter() - start

    once(), once()
    return statistics.median(once() for _ in range(5))


def main():
    begun = time.perf_counter()
    folder, lengths, batches, most = sys.argv[1:]
    with open(f"{folder}/config.json") as file:
        config = json.load(file)
    w = weights(folder)
    with torch.no_grad():
        for batch in map(int, batches.split(",")):
            for length in map(int, lengths.split(",")):
                if time.perf_counter() - begun > float(most):
                    return
                tokens = torch.randint(config["vocab_size"], (batch, length), device="cuda")
                report = {
                    "torch": torch.__version__,
                    "batch": batch,
                    "length": length,
                    "blocks_s": seconds(lambda: blocks(w, config, tokens)[0].cpu()),
                    "forward_s": seconds(lambda: forward(w, config, tokens).cpu()),
                    "forward_on_card_s": seconds(lambda: forward(w, config, tokens)),
                }
                if batch == 1 and length <= 128:
                    report["layer_s"] = seconds(decode_layer(w, config, tokens, 0))
                print(json.dumps(report), flush=True)


main()
