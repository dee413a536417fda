"""What a kernel must withstand, with real kernels: a crate that changes, a panic, an interrupt.

    python kernels.py REPOSITORY SCRATCH_FOLDER

The crate is changed in a copy of the repository, SCRATCH_FOLDER, whose compiled dependencies are links to the repository's.
"""

import os
import pathlib
import queue
import shutil
import subprocess
import sys
import time

from jupyter_client import KernelManager

PRELUDE = "use attention_tokens::{notebook::*, prelude::*};"


class Kernel:
    """A kernel that has loaded the compiled library of a repository."""

    def __init__(self, repository):
        self.manager = KernelManager(kernel_name="rust")
        self.manager.start_kernel(cwd=repository, stderr=subprocess.DEVNULL)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=300)
        package = repository / "crate" / "prebuilt"
        self.run(f':dep attention_tokens_prebuilt = {{ path = "{package}" }}')
        self.run(PRELUDE)

    def run(self, cell, interrupt_after=None):
        """What a cell shows, prints, or fails with."""
        said = []

        def seen(message):
            content = message["content"]
            if message["msg_type"] == "execute_result":
                said.append(content["data"].get("text/plain", ""))
            elif message["msg_type"] == "stream":
                said.append(content["text"])
            elif message["msg_type"] == "error":
                said.append("\n".join(content["traceback"]))

        if interrupt_after is not None:
            identifier = self.client.execute(cell)
            time.sleep(interrupt_after)
            self.manager.interrupt_kernel()
            while True:
                message = self.client.get_iopub_msg(timeout=60)
                if message["parent_header"].get("msg_id") != identifier:
                    continue
                if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                    break
                seen(message)
            self.client.get_shell_msg(timeout=60)
        else:
            self.client.execute_interactive(cell, timeout=600, output_hook=seen)
        return "\n".join(said)

    def printed_late(self):
        """evcxr prints the error that a cell ends with (`?`) after it has called the cell done."""
        said = ""
        try:
            while True:
                message = self.client.get_iopub_msg(timeout=3)
                said += message["content"].get("text", "")
        except queue.Empty:
            return said

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


def expect(what, found, *wanted):
    if not all(text in found for text in wanted):
        sys.exit(f"{what}: expected {wanted}, found:\n{found}")
    print(f"  {what}", flush=True)


def copy(repository, scratch):
    """The repository's sources, and links to what is compiled of its dependencies."""
    shutil.rmtree(scratch, ignore_errors=True)
    ignored = shutil.ignore_patterns("target", ".venv", ".git", "sources", ".ipynb_checkpoints")
    for name in ("crate", "xtask", "tests"):
        shutil.copytree(repository / name, scratch / name, ignore=ignored)
    for name in ("Cargo.toml", "Cargo.lock"):
        shutil.copy2(repository / name, scratch / name)
    for part in (".fingerprint", "build", "deps"):
        for folder, _, files in os.walk(repository / "target" / "release" / part):
            there = scratch / "target" / "release" / pathlib.Path(folder).relative_to(repository / "target" / "release")
            there.mkdir(parents=True, exist_ok=True)
            for file in files:
                # What is compiled again here must not be written into the repository's files.
                if "attention_tokens" not in file and "attention-tokens" not in folder:
                    os.link(os.path.join(folder, file), there / file)


def build(scratch):
    package = scratch / "crate" / "prebuilt"
    command = ["cargo", "build", "--quiet", "--manifest-path", package / "Cargo.toml", "--target-dir", scratch / "target/prebuilt"]
    subprocess.run(command, check=True)


def a_changed_crate(repository, scratch):
    copy(repository, scratch)
    build(scratch)
    before = Kernel(scratch)
    expect("a kernel has the crate as it is", before.run("MIN_ATTN"), "0.3")
    source = scratch / "crate" / "src" / "notebook.rs"
    text = source.read_text()
    old, new = "pub const MIN_ATTN: f32 = 0.3;", "pub const MIN_ATTN: f32 = 0.25;"
    assert text.count(old) == 1
    source.write_text(text.replace(old, new))
    after = Kernel(scratch)
    expect("after an edit, the next kernel has the new one", after.run("MIN_ATTN"), "0.25")
    expect("the kernel that was open keeps its own", before.run("MIN_ATTN"), "0.3")
    before.close()
    after.close()


def accidents(repository):
    kernel = Kernel(repository)
    kernel.run('let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;\nlet n = 7_usize;')
    said = kernel.run('let run = run_prompts(&model, "")?;\nlet none: Option<u8> = None;\nnone.unwrap();')
    expect("a panic is reported", said, "panicked")
    said = kernel.run("(n, model.config().n_layers)")
    expect("after a panic, variables that the cell only borrowed are there", said, "(7, 4)")
    said = kernel.run("let lost = run_prompts(&model, vec![60_000_u32])?;") + kernel.printed_late()
    expect("an error is reported", said, "token id 60000 out of range")
    expect("after an error, all variables are there", kernel.run("(n, model.config().n_layers)"), "(7, 4)")
    started = time.monotonic()
    kernel.run("loop { std::thread::sleep(std::time::Duration::from_millis(10)); }", interrupt_after=4)
    assert time.monotonic() - started < 60
    expect("after an interrupt, variables are lost", kernel.run("n"), "cannot find value `n`")
    said = kernel.run(f'let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;\nmodel.config().n_layers')
    expect("and the kernel works, with its dependencies and `use` lines", said, "4")
    kernel.close()


def main():
    repository, scratch = (pathlib.Path(argument).resolve() for argument in sys.argv[1:])
    accidents(repository)
    a_changed_crate(repository, scratch)


main()
