"""Checks of real Rust kernels: errors, panics, interrupts, completions, types, a crate that changes, the library's former path.

    python kernels.py REPOSITORY SCRATCH_FOLDER LIBRARY

The crate is changed in a copy of the repository, SCRATCH_FOLDER, which shares the compiled dependencies by hard links.
LIBRARY is the compiled library, as a path from the top of the repository.
"""

import json
import os
import pathlib
import queue
import re
import shutil
import subprocess
import sys
import time

import nbformat
from jupyter_client import KernelManager
from jupyter_client.kernelspec import KernelSpecManager

from execute import STARTS

IMPORTS = "use attention_tokens::{notebook::*, prelude::*};"
COLOR = re.compile(r"\x1b\[[\d;]*m")


class Kernel:
    """A running kernel. What evcxr writes to the Jupyter server's log (`Compiling …`) is discarded."""

    def __init__(self, folder):
        for start in range(1, STARTS + 1):
            self.manager = KernelManager(kernel_name="rust")
            self.manager.start_kernel(cwd=folder, stderr=subprocess.DEVNULL)
            self.client = self.manager.client()
            self.client.start_channels()
            try:
                self.client.wait_for_ready(timeout=300)
                return
            except RuntimeError:
                self.close()
                if start == STARTS:
                    raise

    def load(self, repository):
        """Loads the compiled library of a repository."""
        self.run(f':dep attention_tokens_prebuilt = {{ path = "{repository / "crate/prebuilt"}" }}')
        self.run(IMPORTS)
        return self

    def run(self, cell, interrupt_after=None):
        """Returns the texts that a cell outputs: results, prints, errors."""
        texts = []

        def collect(message):
            content = message["content"]
            if message["msg_type"] == "execute_result":
                texts.append(content["data"].get("text/plain", ""))
            elif message["msg_type"] == "stream":
                texts.append(content["text"])
            elif message["msg_type"] == "error":
                texts.append(COLOR.sub("", "\n".join(content["traceback"])))

        if interrupt_after is not None:
            request = self.client.execute(cell)
            time.sleep(interrupt_after)
            self.manager.interrupt_kernel()
            while True:
                message = self.client.get_iopub_msg(timeout=60)
                if message["parent_header"].get("msg_id") != request:
                    continue
                if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                    break
                collect(message)
            self.client.get_shell_msg(timeout=60)
        else:
            self.client.execute_interactive(cell, timeout=600, output_hook=collect)
        return "\n".join(texts)

    def run_all(self, cells):
        """Executes cells without waiting for one, as *Run All* does, and returns the texts on stderr under each."""
        requests = [self.client.execute(cell) for cell in cells]
        texts, waiting = {request: "" for request in requests}, set(requests)
        while waiting:
            message = self.client.get_iopub_msg(timeout=600)
            request, content = message["parent_header"].get("msg_id"), message["content"]
            if message["msg_type"] == "status" and content["execution_state"] == "idle":
                waiting.discard(request)
            # Only what arrives while the cell counts as running.
            elif message["msg_type"] == "stream" and content["name"] == "stderr" and request in waiting:
                texts[request] += content["text"]
        return [texts[request] for request in requests]

    def late_output(self):
        """Returns the text that arrives after a cell is done: a stock kernel may print the error of a `?` only then."""
        text = ""
        try:
            while True:
                message = self.client.get_iopub_msg(timeout=3)
                text += message["content"].get("text", "")
        except queue.Empty:
            return text

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


def expect(what, found, *wanted):
    if not all(text in found for text in wanted):
        sys.exit(f"{what}: expected {wanted}, found:\n{found}")
    print(f"  {what}", flush=True)


def copy(repository, scratch, library):
    """Copies the repository's sources and links its compiled dependencies."""
    shutil.rmtree(scratch, ignore_errors=True)
    ignored = shutil.ignore_patterns("target", ".venv", ".git", "sources", ".ipynb_checkpoints")
    for name in ("crate", "xtask", "tests"):
        shutil.copytree(repository / name, scratch / name, ignore=ignored)
    for name in ("Cargo.toml", "Cargo.lock"):
        shutil.copy2(repository / name, scratch / name)
    # With `build.target` in the user's configuration, the library is in a folder of its target. Build scripts are not.
    releases = {repository / "target/release", library.parent}
    for part in (release / name for release in releases for name in (".fingerprint", "build", "deps")):
        for folder, _, files in os.walk(part):
            copied = scratch / pathlib.Path(folder).relative_to(repository)
            copied.mkdir(parents=True, exist_ok=True)
            for file in files:
                # The copy compiles these again, and must not write through a link into the repository's files.
                if "attention_tokens" not in file and "attention-tokens" not in folder:
                    os.link(os.path.join(folder, file), copied / file)


def build(repository):
    """Compiles the library and links its sources, as the set-up does."""
    manifest = repository / "crate/prebuilt/Cargo.toml"
    command = ["cargo", "build", "--quiet", "--manifest-path", manifest, "--target-dir", repository / "target/prebuilt"]
    subprocess.run(command, check=True)


def check_changed_crate(repository, scratch, library):
    copy(repository, scratch, library)
    build(scratch)
    before = Kernel(scratch).load(scratch)
    expect("a kernel has the crate as it is", before.run("MIN_ATTN"), "0.3")
    source = scratch / "crate" / "src" / "notebook.rs"
    text = source.read_text()
    old, new = "pub const MIN_ATTN: f32 = 0.3;", "pub const MIN_ATTN: f32 = 0.25;"
    assert text.count(old) == 1
    source.write_text(text.replace(old, new))
    after = Kernel(scratch).load(scratch)
    expect("after an edit, the next kernel has the changed crate", after.run("MIN_ATTN"), "0.25")
    expect("the kernel that was open still has the old one", before.run("MIN_ATTN"), "0.3")
    before.close()
    after.close()


def check_failing_cells(repository):
    kernel = Kernel(repository).load(repository)
    kernel.run('let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;\nlet n = 7_usize;')
    output = kernel.run('let run = run_prompts(&model, "")?;\nlet none: Option<u8> = None;\nnone.unwrap();')
    expect("a panic is reported", output, "panicked")
    output = kernel.run("(n, model.config().n_layers)")
    expect("after a panic, the variables that the cell only borrowed are there", output, "(7, 4)")
    output = kernel.run("let lost = run_prompts(&model, vec![60_000_u32])?;") + kernel.late_output()
    expect("an error is reported", output, "token id 60000 out of range")
    expect("after an error, all variables are there", kernel.run("(n, model.config().n_layers)"), "(7, 4)")
    started = time.monotonic()
    kernel.run("loop { std::thread::sleep(std::time::Duration::from_millis(10)); }", interrupt_after=4)
    assert time.monotonic() - started < 60
    expect("after an interrupt, variables are lost", kernel.run("n"), "cannot find value `n`")
    output = kernel.run('let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;\nmodel.config().n_layers')
    expect("but the kernel works, with its dependencies and `use` lines", output, "4")
    kernel.close()


def check_places_of_outputs(repository):
    """Checks that an error is under its own cell, and that a figure drops neither text nor another figure."""
    kernel = Kernel(repository).load(repository)
    kernel.run("let figure = plot_attns(&attention_tokens::ndarray::arr2(&[[0.0]]));")
    cells = [f'let n: u8 = "number {i}".parse()?;' for i in range(6)]
    texts = kernel.run_all([cell for failing in cells for cell in (failing, 'println!("next");')])
    for failing, following in zip(texts[::2], texts[1::2]):
        expect("an error is under its own cell", failing, "invalid digit found in string")
        if following:
            sys.exit(f"expected no error under the next cell, found:\n{following}")
    output = kernel.run('print!("before"); figure')
    expect("text before a figure is kept", output, "before", "1 × 1 cells")
    output = kernel.run("show_all(&[&figure, &figure])")
    if output.count("1 × 1 cells") != 2:
        sys.exit(f"expected two figures, found:\n{output}")
    kernel.close()


def check_completions(repository):
    """Checks that completions are what a cell can use, and that the compiler says what to do about a batch."""
    kernel = Kernel(repository).load(repository)
    kernel.run('let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;')
    kernel.run('let run = run_prompts(&model, "The bus is late.")?;\nlet data = calculate_attns(&run, 0, 1)?;')
    wanted = {"model.": ("run_with_cache", "hooked"), "run.cache.": ("pattern", "get_by_name"), "data.": ("prompt", "layer")}
    # Private methods and fields, and what only evcxr calls.
    unwanted = ("engine", "on_device", "run_with_everything", "checked_tokens", "check_model", "sizes", "one_prompt", "0")
    for cell, names in wanted.items():
        reply = kernel.client.complete(cell, len(cell), reply=True, timeout=60)["content"]
        found = {match.split("(")[0] for match in reply["matches"]}
        expect(f"completions of `{cell}` have what a cell can call", " ".join(found), *names)
        private = sorted(found.intersection((*unwanted, "evcxr_display")))
        if private:
            sys.exit(f"completions of `{cell}`: {private} cannot be called")
    output = kernel.run("plot_head(&data)")
    expect("a batch in place of a prompt is explained", output, "expected the data of one prompt", "data.prompt(0)?")
    kernel.close()


def check_standard_library(repository):
    """Checks types and documentation of the standard library, of which the kernel reads outlines."""
    kernel = Kernel(repository)
    largest = "counts.iter().map(|(key, value)| (*key, value * 2.0)).max_by(|a, b| a.1.total_cmp(&b.1))"
    pairs = "\"a=1;b=2\".split(';').filter_map(|pair| pair.split_once('=')).collect::<Vec<_>>()"
    variables = {
        "counts": ("std::collections::HashMap::from([(1_u8, 2.5_f32)])", "std::collections::HashMap<u8, f32>"),
        "digits": ("300_u16.to_string().len()", "usize"),
        "largest": (largest, "Option<(u8, f32)>"),
        "pairs": (pairs, "Vec<(&str, &str)>"),
        # The lengths of arrays are results of `const` functions.
        "bytes": ("7_u32.to_be_bytes()", "[u8; 4]"),
        "zeros": ("[0_u8; std::mem::size_of::<[u16; 3]>()]", "[u8; 6]"),
        "hash": ("std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 3)", "u64"),
        "len": ("std::sync::Arc::new(std::sync::Mutex::new(vec![1_u8])).lock().unwrap().len()", "usize"),
        "text": ('std::fs::read_to_string("/")', "Result<String, std::io::Error>"),
        # Methods and implementations from macros, some of whose arguments are attributes.
        "byte": ("u8::from(true).wrapping_add(1)", "u8"),
        "former": ("std::sync::atomic::AtomicU32::new(7).fetch_add(1, std::sync::atomic::Ordering::Relaxed)", "u32"),
        "nonzero": ("std::num::NonZeroU16::new(3).map(std::num::NonZeroU16::get)", "Option<u16>"),
        "wide": ("i128::from(5_u64).checked_pow(2)", "Option<i128>"),
    }
    output = kernel.run("\n".join(f"let {name} = {value};" for name, (value, _) in variables.items()))
    types = [f"{name}: {type}" for name, (_, type) in variables.items()]
    expect("types of the standard library are found", output + kernel.run(":vars"), *types)
    documentation = {
        "Vec::<u8>::push": ("Appends an element to the back of a collection", "<h1>Panics</h1>", "vec.push(3);"),
        "u32::pow": ("Raises self to the power of", "using exponentiation by squaring", "2u32"),
    }
    for cell, words in documentation.items():
        found = kernel.client.inspect(cell, len(cell), reply=True, timeout=60)["content"]
        expect(f"the documentation of {cell} is found", json.dumps(found), *words)
    kernel.close()


def check_former_path(repository):
    """Checks that the library's former path gives one error, with the new path and without cargo's own output."""
    kernel = Kernel(repository)
    path = repository / "crate/notebook"
    for rest in (" }", ', features = ["cuda"] }\n' + IMPORTS):
        output = kernel.run(f':dep attention_tokens_notebook = {{ path = "{path}"{rest}')
        new = ':dep attention_tokens_prebuilt = { path = "…/crate/prebuilt" }'
        expect("the library's former path is an error with the new one", output, "crate/notebook", new)
        if len(output.splitlines()) != 1:
            sys.exit(f"expected one line, found:\n{output}")
    kernel.load(repository)
    expect("the same kernel then loads the library from the new path", kernel.run("MIN_ATTN"), "0.3")
    kernel.close()


def check_compiled_once(repository, library):
    """Checks that a kernel uses the library that the set-up has compiled, and does not compile it again."""
    compiled = library.stat().st_mtime_ns
    Kernel(repository).load(repository).close()
    if library.stat().st_mtime_ns != compiled:
        sys.exit(f"a kernel has compiled {library} again")
    print("a kernel loads the library as it was compiled")


def check_second_start(scratch):
    """Checks that a notebook is executed although its kernel ends at once the first time, as if a port were taken."""
    spec = KernelSpecManager().get_kernel_spec("rust").to_dict()
    folder = scratch.with_name("second-start")
    shutil.rmtree(folder, ignore_errors=True)
    kernel, output = folder / "kernels/rust", folder / "output"
    kernel.mkdir(parents=True)
    first = folder / "started"
    script = "import os, pathlib, sys\nfirst = pathlib.Path(sys.argv[1])\n"
    script += "if first.exists(): os.execv(sys.argv[2], sys.argv[2:])\nfirst.touch()\nsys.exit(1)"
    spec["argv"] = [sys.executable, "-c", script, str(first), *spec["argv"]]
    (kernel / "kernel.json").write_text(json.dumps(spec))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("6 * 7")])
    nbformat.write(notebook, folder / "a.ipynb")
    execute = [sys.executable, pathlib.Path(__file__).with_name("execute.py"), folder / "a.ipynb", output]
    done = subprocess.run(execute, env=os.environ | {"JUPYTER_PATH": str(folder)}, capture_output=True, text=True)
    expect("a kernel that ends before it answers is started again", done.stderr, "the kernel is started again")
    executed = nbformat.read(output / "a.ipynb", as_version=4) if done.returncode == 0 else sys.exit(done.stderr)
    expect("and executes the notebook", executed.cells[0].outputs[0].data["text/plain"], "42")


def main():
    # A user's setting that evcxr's cache does not bear; the registered kernel overrides it.
    os.environ["CARGO_INCREMENTAL"] = "0"
    repository, scratch = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])
    library = repository / sys.argv[3]
    check_second_start(scratch)
    check_compiled_once(repository, library)
    check_standard_library(repository)
    check_former_path(repository)
    check_failing_cells(repository)
    check_places_of_outputs(repository)
    check_completions(repository)
    check_changed_crate(repository, scratch, library)


if __name__ == "__main__":
    main()
