"""Compares the speed of TransformerLens and this crate on the same weights, in alternating rounds (A B A B).

    python side_by_side.py REFERENCE_PYTHON FOLDER [--rounds 2] [--lengths 13,64,128,512,1024] [--no-composition]

With `--lengths ""` only generation, the analysis of a run and that of the weights are compared, and loading.

REFERENCE_PYTHON is a Python with the packages of `reference/requirements.txt`. FOLDER is a GPT-2 in Hugging Face's
format; if it does not exist, random weights of GPT-2 small's shape are written there. Prints two Markdown tables: the
comparison, and each stage's share of the machine's peak rates (roofline). A head is "cached" when its decode table is
in the model's decoding cache.
"""

import argparse
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile

import needs

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
REFERENCE = HERE / "reference" / "reference.py"


def ours(folder, lengths):
    command = ["cargo", "run", "--release", "--quiet", "--package", "attention-tokens", "--example", "timings"]
    printed = subprocess.run([*command, "--", folder, lengths], cwd=ROOT, check=True, capture_output=True, text=True)
    return json.loads(printed.stdout)


def theirs(python, folder, lengths, *flags):
    with tempfile.TemporaryDirectory() as temporary:
        out = os.path.join(temporary, "out.json")
        command = [python, REFERENCE, "bench", folder, "--lengths", lengths, "--out", out, *flags]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return json.loads(pathlib.Path(out).read_text())


def median(runs, *path):
    """The median over the rounds of the value at `path` in the reports, or None if it was not measured."""
    values = runs
    for key in path:
        values = [(value or {}).get(key) for value in values]
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def milliseconds(seconds):
    return "" if seconds is None else f"{1e3 * seconds:,.1f}" if seconds < 1 else f"{1e3 * seconds:,.0f}"


class Table:
    """Prints the rows of the comparison as Markdown."""

    def __init__(self, ours, theirs):
        self.ours, self.theirs = ours, theirs
        print("| what | TransformerLens, ms | here, ms | times as fast | target | |")
        print("|---|---:|---:|---:|---:|---|")

    def row(self, what, theirs, ours, target):
        """Prints a row; `theirs` and `ours` are paths in the reports."""
        reference, seconds = median(self.theirs, *theirs), median(self.ours, *ours)
        if reference is None or seconds is None:
            return
        ratio = reference / seconds
        met = "met" if ratio >= target else "**missed**"
        print(f"| {what} | {milliseconds(reference)} | {milliseconds(seconds)} | {ratio:.1f} | {target:g} | {met} |")

    def alone(self, what, value, text, limit, limit_text, at_least=False):
        """Prints a target that has no counterpart in the reference."""
        if value is not None:
            met = "met" if (value >= limit if at_least else value <= limit) else "**missed**"
            print(f"| {what} | | {text} | | {limit_text} | {met} |")


def side_by_side(ours, theirs, lengths):
    table = Table(ours, theirs)
    table.row("load with all processing, against its processing alone", ["process_s"], ["load_s"], 3)
    targets = {13: (2, 1.5), 64: (1.5, 1.5), 128: (1.5, 1.5), 512: (1.5, 1.5), 1024: (2.5, 1.5)}
    for length in lengths:
        cached, forward = targets.get(length, (1, 1))
        for what, name, target in [
            ("`run_with_cache`", "run_with_cache_s", cached),
            ("`run_with_cache`, no logits", "run_with_cache_no_logits_s", cached),
            ("forward", "forward_s", forward),
            ("one head, cached", "attention_tokens_one_head_s", 100),
        ]:
            path = ["lengths", str(length), name]
            table.row(f"{what}, S = {length}", path, path, target)
    generate = ["analysis", "generate_50", "s"]
    table.row("generate 50 tokens after 13", generate, generate, 3)
    for what, name in [
        ("logit lens: the most likely token, an answer's logit, probability and rank; all layers and positions", "logit_lens"),
        ("direct logit attribution: all heads and positions, one answer", "head_logit_attrs"),
        ("`stack_head_results`: all heads and positions", "stack_head_results"),
        ("`all_composition_scores`, Q (here with the random baseline)", "composition_Q"),
        ("`all_composition_scores`, K (here with the random baseline)", "composition_K"),
        ("`all_composition_scores`, V (here with the random baseline)", "composition_V"),
    ]:
        length = "" if name.startswith("composition") else ", S = 15"
        table.row(what + length, ["analysis", name, "s"], ["analysis", name, "s"], 5)
    one_head = ["lengths", "13", "attention_tokens_one_head_s"]
    table.row("one head, first time, S = 13", one_head, ["all_heads", "one_head_first_s"], 15)
    times = [("first time", "first_s", 5), ("filling the cache", "caching_s", 5), ("cached", "cached_s", 1)]
    for what, name, limit in times:
        seconds = median(ours, "all_heads", name)
        table.alone(f"all heads, {what}, S = 13", seconds, milliseconds(seconds), limit, f"{1e3 * limit:,.0f} ms")
    parameters = median(ours, "parameter_bytes")
    peak = median(ours, "load_peak_bytes")
    if peak:
        share = peak / parameters
        table.alone("peak memory of loading, relative to the parameters", share, f"{share:.2f}", 2.5, "2.5")
    peak = median(ours, "all_heads", "peak_bytes")
    if peak:
        table.alone("peak memory with all heads cached", peak, f"{peak / 1e9:.2f} GB", 3e9, "3 GB")


def agreement(ours, theirs):
    """Prints the largest difference of the results of both sides, as a share of the largest magnitude."""
    differences = []
    for name, row in ours["analysis"].items():
        if "values" not in row or name not in theirs["analysis"]:
            continue
        own, reference = row["values"], theirs["analysis"][name]["values"]
        if len(own) != len(reference):
            sys.exit(f"{name}: {len(own)} numbers here, {len(reference)} in TransformerLens")
        largest = max(abs(value) for value in reference)
        difference = max(abs(a - b) for a, b in zip(own, reference)) / largest
        differences.append(f"{name} {difference:.0e}")
        if difference > 1e-4:
            sys.exit(f"{name} differs from TransformerLens by {difference:.0e} of the largest number")
    print(f"\nResults, largest difference / largest magnitude: {', '.join(differences)}.", end="")
    for name in ["logit_lens", "generate_50"]:
        own, reference = (side["analysis"][name]["tokens"] for side in (ours, theirs))
        same = sum(a == b for a, b in zip(own, reference))
        print(f" {name}: {same} of {len(reference)} tokens are the same.", end="")
    print()


def roofline(ours, folder, lengths):
    config = json.loads((pathlib.Path(folder) / "config.json").read_text())
    n_layers, n_heads, d_model = config["n_layer"], config["n_head"], config["n_embd"]
    d_vocab, d_head = config["vocab_size"], d_model // n_heads
    gemm, read = 1e9 * median(ours, "gemm_gflops"), 1e9 * median(ours, "read_gbs")
    integer = 1e9 * median(ours, "integer_gops")
    print(f"\n1024³ products: {gemm / 1e9:.0f} GFLOP/s (`gemm`, float32), {integer / 1e9:.0f} GOP/s (`rten-gemm`, 8-bit ", end="")
    print(f"integers); reading memory: {read / 1e9:.0f} GB/s\n")
    print("| stage | ms | Gop | GB | bound by | bound, ms | bound / time |")
    print("|---|---:|---:|---:|---|---:|---:|")

    def row(stage, seconds, flop, memory, integers=0):
        if seconds is None:
            return
        by_product, by_memory = flop / gemm + integers / integer, memory / read
        kinds = " and ".join(kind for kind, n in [("float32", flop), ("integers", integers)] if n)
        by, bound = (kinds, by_product) if by_product > by_memory else ("memory", by_memory)
        row = [stage, milliseconds(seconds), f"{(flop + integers) / 1e9:.1f}", f"{memory / 1e9:.2f}", by, milliseconds(bound)]
        print("| " + " | ".join([*row, f"{100 * bound / seconds:.0f} %"]) + " |")

    parameters = median(ours, "parameter_bytes")
    # The file is read once, and the parameters are written twice: as in the file, and in the layout of the GEMM.
    row("load", median(ours, "load_s"), 0, 3 * parameters)
    blocks, unembed = 12 * d_model**2 * n_layers, d_model * d_vocab
    of_analysis = lambda name: median(ours, "analysis", name, "s")
    # Every token reads every weight of the blocks once, and those of the unembedding as 8-bit integers.
    memory, integers = 50 * (4 * blocks + unembed), 100 * unembed
    row("generate 50 tokens after 13", of_analysis("generate_50"), 100 * blocks, memory, integers)
    rows = 15 * (2 * n_layers + 1)
    row("logit lens, S = 15", of_analysis("logit_lens"), 2 * rows * unembed, 4 * (unembed + rows * d_vocab))
    shares = []
    for s in lengths:
        cells = s * (s + 1) / 2
        flop = 2 * s * blocks + 4 * cells * d_model * n_layers
        # A block's entries in the cache: eight [S, d_model] (resid_post is the next resid_pre) and the patterns.
        cache = 4 * n_layers * (8 * s * d_model + n_heads * s * s)
        logits = 4 * s * d_vocab
        at = lambda name: median(ours, "lengths", str(s), name)
        row(f"`run_with_cache`, no logits, S = {s}", at("run_with_cache_no_logits_s"), flop, 4 * blocks + cache)
        flop += 2 * s * unembed
        row(f"`run_with_cache`, S = {s}", at("run_with_cache_s"), flop, 4 * (blocks + unembed) + cache + logits)
        row(f"forward, S = {s}", at("forward_s"), flop, 4 * (blocks + unembed) + logits)
        vectors = cells + 3 * s
        decode, whole = 2 * vectors * d_head * d_vocab, 2 * vectors * unembed
        seconds = at("attention_tokens_one_head_s")
        row(f"one head, cached, S = {s}", seconds, 0, d_head * d_vocab, decode)
        if seconds:
            shares.append(f"{100 * decode / gemm / seconds:.0f} % (S = {s})")
        if s == 13:
            head, heads = median(ours, "all_heads", "one_head_first_s"), n_layers * n_heads
            row("one head, first time, S = 13", head, 0, unembed, whole)
            row("all heads, first time, S = 13", median(ours, "all_heads", "first_s"), 0, heads * unembed, heads * whole)
            tables, memory = 2 * d_head * unembed, heads * 4 * unembed
            seconds = median(ours, "all_heads", "caching_s")
            row("all heads, filling the cache, S = 13", seconds, heads * tables, memory, heads * decode)
            seconds = median(ours, "all_heads", "cached_s")
            row("all heads, cached, S = 13", seconds, 0, heads * d_head * d_vocab, heads * decode)
    if shares:
        print(f"\nOperations of decoding one cached head, relative to the rate of `gemm`: {', '.join(shares)}.")


def machine():
    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        flags = next((line for line in lines if line.startswith("flags")), "")
        name = f"{len(models)} × {models[0]}{' with AVX-512' if 'avx512f' in flags else ''}" if models else name
    return f"{name}, {platform.system()} {platform.release()}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", help="the reference's Python")
    parser.add_argument("folder", help="a model folder")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--lengths", default="13,64,128,512,1024")
    help = "skip TransformerLens' composition scores, which take minutes; else they are computed in the first round only"
    parser.add_argument("--no-composition", action="store_true", help=help)
    arguments = parser.parse_args()
    needs.program("cargo")
    needs.packages(arguments.python, ["torch", "transformers", "transformer_lens", "safetensors"])
    if not os.path.exists(arguments.folder):
        subprocess.run([arguments.python, REFERENCE, "weights", arguments.folder], check=True)
        # For opening.py, which runs a text.
        shutil.copy(needs.TOKENIZER, arguments.folder)
    needs.model(arguments.folder, tokenizer=False)
    lengths = needs.lengths(arguments.lengths, arguments.folder) if arguments.lengths else []
    build = ["cargo", "build", "--release", "--quiet", "--package", "attention-tokens", "--example", "timings"]
    subprocess.run(build, cwd=ROOT, check=True)

    folder = os.path.abspath(arguments.folder)
    rounds = []
    for number in range(arguments.rounds):
        flags = ["--no-composition"] if arguments.no_composition or number > 0 else []
        own = ours(folder, arguments.lengths)
        rounds.append((own, theirs(arguments.python, folder, arguments.lengths, *flags)))
    own, reference = [pair[0] for pair in rounds], [pair[1] for pair in rounds]
    threads = f"{own[0]['threads']} threads here, {reference[0]['threads']} there"
    print(f"{machine()}; {threads}; torch {reference[0]['torch']}; medians over {arguments.rounds} rounds A B A B\n")
    side_by_side(own, reference, lengths)
    agreement(own[0], reference[0])
    roofline(own, folder, lengths)


main()
