"""Times the opening of a notebook up to its first figure, in this project's kernel, in a stock kernel, and in Python.

    .venv/bin/python crate/benches/opening.py REFERENCE_PYTHON FOLDER [--rounds 2] [--plain]

Run it after `cargo xtask run`. REFERENCE_PYTHON is a Python with the packages of `reference/requirements.txt`. FOLDER is
a GPT-2 in Hugging Face's format (`side_by_side.py` writes one of GPT-2 small's shape). The first cells of notebook 01
run with that model in these settings:

- ours: the compiled library in the kernel that `cargo xtask` registers;
- second: the same, while another such notebook is open;
- both: the slower of two such notebooks that start at the same moment;
- stock: the compiled library in a kernel with evcxr's own settings;
- Python: a process that does the work of the original notebook's cells, without the start of a kernel;
- with --plain, once each: `:dep attention-tokens = { path = "…/crate" }` in a stock kernel, which compiles all
  dependencies, and in ours, where a previous run has cached them.

Rounds alternate the settings, every other round backwards (A B B A), so that none always follows the same one: a kernel
that starts right after Python is up to three seconds slower. Prints a Markdown table of the medians.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import needs

if importlib.util.find_spec("jupyter_client") is None:
    sys.exit(f"{sys.executable} has no Jupyter: run `cargo xtask run` first, and start this with its .venv/bin/python")

from jupyter_client import KernelManager  # noqa: E402
from jupyter_client.kernelspec import KernelSpecManager  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
NOTEBOOK = ROOT / "notebooks" / "01_attention_tokens.ipynb"
COMPILED = ':dep attention_tokens_prebuilt = { path = "../crate/prebuilt" }'
PLAIN = ':dep attention-tokens = { path = "../crate" }'
STEPS = ["start", ":dep", "use", "first variable: the model", "a prompt", "first figure", "next figure"]

PYTHON = """
import json, sys, time
started = time.time()
seconds = lambda: time.time() - started
out = {"start": started}
import torch, plotly.graph_objects as go
sys.path.insert(0, sys.argv[1])
import reference
out["use"] = seconds()
model, _ = reference.load(sys.argv[2], **reference.PROCESSING)
out["first variable: the model"] = seconds()
tokens = torch.randint(0, model.cfg.d_vocab, (1, 13), generator=torch.Generator().manual_seed(1))
_, cache = model.run_with_cache(tokens)
out["a prompt"] = seconds()
for step, head in (("first figure", 1), ("next figure", 2)):
    data = reference.attention_tokens(model, cache, 0, head)[0][0].tril()
    _, pattern = torch.unique(data, return_inverse=True)
    go.Figure(go.Heatmap(z=pattern.tolist())).to_json()
    out[step] = seconds()
print(json.dumps(out))
"""


def cells(folder, dep):
    notebook = json.loads(NOTEBOOK.read_text())
    sources = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"][:6]
    assert sources[0] == COMPILED and '"demo"' in sources[2]
    return [dep, sources[1], sources[2].replace('"demo"', json.dumps(str(folder))), *sources[3:]]


class Opened:
    """An open notebook and the seconds of each step of opening it."""

    def __init__(self, kernel, folder, dep=COMPILED):
        started = time.monotonic()
        self.manager = KernelManager(kernel_name=kernel)
        self.manager.start_kernel(cwd=NOTEBOOK.parent, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=600)
        self.seconds = {"start": time.monotonic() - started}
        for step, cell in zip(STEPS[1:], cells(folder, dep)):
            before, errors = time.monotonic(), []

            def collect_errors(message):
                if message["msg_type"] == "error":
                    errors.append("\n".join(message["content"]["traceback"]))

            self.client.execute_interactive(cell, timeout=1800, output_hook=collect_errors)
            if errors:
                sys.exit(f"{cell}\n{errors}")
            self.seconds[step] = time.monotonic() - before

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        return self.seconds


def both(kernel, folder):
    opened = [None, None]

    def open_one(index):
        opened[index] = Opened(kernel, folder)

    threads = [threading.Thread(target=open_one, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return max((one.close() for one in opened), key=to_first_figure)


def second(kernel, folder):
    first = Opened(kernel, folder)
    seconds = Opened(kernel, folder).close()
    first.close()
    return seconds


def python(interpreter, folder):
    before = time.time()
    run = [interpreter, "-c", PYTHON, str(HERE / "reference"), str(folder)]
    out = json.loads(subprocess.run(run, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    started = out.pop("start") - before
    seconds, last = {"start": started}, 0
    for step, at in out.items():
        seconds[step], last = at - last, at
    return seconds


def to_first_figure(seconds):
    return sum(value for step, value in seconds.items() if step != "next figure")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("reference_python")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--plain", action="store_true")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    needs.program("cargo")
    needs.kernel(KernelSpecManager().find_kernel_specs(), "rust")
    needs.model(folder, tokenizer=True)
    needs.packages(
        arguments.reference_python, ["torch", "transformers", "transformer_lens", "safetensors", "plotly"]
    )

    with tempfile.TemporaryDirectory() as temporary:
        own = KernelSpecManager().get_kernel_spec("rust")
        stock = pathlib.Path(temporary) / "kernels" / "stock-rust"
        stock.mkdir(parents=True)
        argv = own.argv[-3:]  # without the script that starts ours
        spec = {"argv": argv, "display_name": "stock", "language": "rust", "env": {"EVCXR_CONFIG_DIR": temporary}}
        (stock / "kernel.json").write_text(json.dumps(spec))
        os.environ["JUPYTER_PATH"] = temporary
        settings = {
            "ours": lambda: Opened("rust", folder).close(),
            "second": lambda: second("rust", folder),
            "both": lambda: both("rust", folder),
            "stock": lambda: Opened("stock-rust", folder).close(),
            "Python": lambda: python(arguments.reference_python, folder),
        }
        runs = {setting: [] for setting in settings}
        for number in range(arguments.rounds):
            order = list(settings.items())
            for setting, run in order if number % 2 == 0 else reversed(order):
                runs[setting].append(run())
                total = to_first_figure(runs[setting][-1])
                print(f"round {number + 1}, {setting}: {total:.1f} s to the first figure", file=sys.stderr, flush=True)
        if arguments.plain:
            runs["plain, stock"] = [Opened("stock-rust", folder, PLAIN).close()]
            Opened("rust", folder, PLAIN).close()  # fills evcxr's cache
            runs["plain, ours, cached"] = [Opened("rust", folder, PLAIN).close()]

    print("| seconds | " + " | ".join(runs) + " |")
    print("|---|" + "---:|" * len(runs))
    for step in STEPS:
        medians = [[run[step] for run in done if step in run] for done in runs.values()]
        print(f"| {step} | " + " | ".join(f"{statistics.median(m):.2f}" if m else "" for m in medians) + " |")
    totals = [[to_first_figure(run) for run in done] for done in runs.values()]
    print("| **to the first figure** | " + " | ".join(f"**{statistics.median(t):.1f}**" for t in totals) + " |")
    print("| in each round | " + " | ".join(", ".join(f"{value:.1f}" for value in t) for t in totals) + " |")


main()
