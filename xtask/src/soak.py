"""Mixed work in one real Rust kernel for a long time, and what it costs: memory, threads, open files.

    python soak.py REPOSITORY MINUTES

Each round loads models, runs and decodes prompts of many lengths, draws figures, generates, patches, fails and panics.
Ten times in the first half, a running cell is interrupted, which ends the process that has the variables (evcxr starts
another). In the second half, one process does all the work, so that what it does not free adds up. Linux only: it reads /proc.
"""

import json
import pathlib
import random
import statistics
import string
import sys
import time

from kernels import Kernel

SETUP = """use attention_tokens::{notebook::*, patching, patching::{Ablation, Metric, head_effects}, prelude::*};
fn words(seed: u64, n: usize) -> String {
    const WORDS: [&str; 8] = ["the", "bus", "is", "late", "Mary", "gave", "John", "sentence"];
    (0..n).map(|i| WORDS[(seed as usize * 31 + i * i * 7 + i) % 8]).collect::<Vec<_>>().join(" ")
}"""
MODEL = 'let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;'
# `$seed` and `$n` change from round to round. Each cell leaves as many variables as there were.
CELLS = {
    "load": 'for name in ["demo", "letters", "demo"] {\n'
    '    Gpt2::from_pretrained(name, LoadOptions::default())?.forward("a b c")?;\n}\n' + MODEL,
    "run": "for i in 0..20 {\n    let run = model.run_with_cache(words($seed + i, 1 + ($n * (i as usize + 1)) % 120))?;\n"
    "    drop(run.1.names());\n}",
    "batch": "model.run_with_cache((0..40).map(|i| words($seed + i, 1 + i as usize % 30)).collect::<Vec<_>>())?.1.names().len()",
    "decode": "let run = run_prompts(&model, words($seed, $n))?;\nfor layer in 0..4 {\n    drop(calculate_layer(&run, layer)?);\n}",
    "figure": "let run = run_prompts(&model, words($seed, $n))?;\nplot_head(&calculate_attns(&run, 0, ($seed % 8) as usize)?.prompt(0)?)",
    "page": "let run = run_prompts(&model, words($seed, $n))?;\nlayer_grid(&calculate_layer(&run, 1)?, 0)?",
    "generate": "model.generate(words($seed, $n), GenerateOptions::default())?;",
    "patch": 'let metric = Metric::logit_diff(&[[model.to_single_token(" Mary")?, model.to_single_token(" John")?]]);\n'
    "let effects = head_effects(&model, words($seed, $n), &metric, Ablation::Zero, patching::SweepOptions::default())?;\neffects.values.sum()",
    "error": "let lost = run_prompts(&model, vec![60_000_u32])?;",
    "panic": "let none: Option<u8> = None;\nnone.unwrap();",
}
INTERRUPTS = 10
ENDLESS = "loop {\n    model.run_with_cache(words($seed, 60))?;\n}"


def processes(root):
    """A process and its descendants, the root first."""
    children = {}
    for entry in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    found = [root]
    for process in found:
        found.extend(children.get(process, []))
    return found


def costs(kernel):
    """Resident megabytes, threads and open files of evcxr's two processes: the kernel, and the one with the variables."""
    measured = {}
    # A compiler that still runs is a descendant too; those that have ended are gone.
    for process in processes(kernel.manager.provisioner.pid):
        status = pathlib.Path(f"/proc/{process}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        name = "kernel" if not measured else "variables" if fields["Name"].startswith("evcxr") else None
        if name:
            measured[name] = {
                "MB": int(fields["VmRSS"].split()[0]) / 1024,
                "threads": int(fields["Threads"]),
                "files": len(list(pathlib.Path(f"/proc/{process}/fd").iterdir())),
            }
    return measured


def prepare(kernel):
    output = kernel.run(SETUP) + kernel.run(MODEL)
    if "error" in output.lower():
        sys.exit(f"the set-up of the kernel failed:\n{output}")


def main():
    repository, minutes = pathlib.Path(sys.argv[1]).resolve(), float(sys.argv[2])
    seconds = 60 * minutes
    choose = random.Random(1)
    kernel = Kernel(repository).load(repository)
    prepare(kernel)
    started, rounds, interrupts, executed, failures = time.monotonic(), [], 0, 0, []
    expected = {"error": "token id 60000 out of range", "panic": "panicked"}
    while time.monotonic() - started < seconds:
        for name in choose.sample(list(CELLS), len(CELLS)):
            cell = string.Template(CELLS[name]).substitute(seed=choose.randrange(1000), n=choose.randrange(2, 60))
            # What is written to stderr may arrive after the cell is done.
            output = kernel.run(cell) + (kernel.late_output() if name in expected else "")
            executed += 1
            problem = expected[name] not in output if name in expected else "error" in output.lower()
            if problem:
                failures.append(f"{name}: {cell}\n{output}")
        rounds.append({"seconds": round(time.monotonic() - started), "interrupts": interrupts, "cells": executed, **costs(kernel)})
        print(json.dumps(rounds[-1]), flush=True)
        if interrupts < INTERRUPTS and time.monotonic() - started > seconds / 2 * (interrupts + 1) / INTERRUPTS:
            kernel.run(string.Template(ENDLESS).substitute(seed=7), interrupt_after=choose.uniform(2, 6))
            interrupts += 1
            prepare(kernel)
    kernel.close()
    print(f"{executed} cells, {interrupts} interrupts, {len(failures)} unexpected outputs")
    in_one_process = [measured for measured in rounds if measured["interrupts"] == INTERRUPTS]
    if len(in_one_process) < 6:
        sys.exit(f"{len(in_one_process)} rounds after the last interrupt are too few to tell whether memory grows: give it more minutes")
    sys.exit("\n".join(failures[:5] + growth("kernel", rounds) + growth("variables", in_one_process)) or 0)


def growth(name, rounds):
    """Prints the medians of a process in the first, second and last third of the rounds, and returns what has grown."""
    grown, third = [], len(rounds) // 3
    parts = [rounds[:third], rounds[third : 2 * third], rounds[2 * third :]]
    # The compiler that the kernel loads and the buffers of dropped activations fill up in the first minutes.
    for what, allowed in (("MB", 1.1), ("threads", 1), ("files", 1)):
        medians = [statistics.median(measured[name][what] for measured in part) for part in parts]
        print(f"{name}, {what}: {', '.join(f'{median:.0f}' for median in medians)}")
        if medians[2] > allowed * max(medians[:2]):
            grown.append(f"{name}: {what} grow")
    return grown


main()
