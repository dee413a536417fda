"""What the benchmarks need. Each check ends the program with a sentence that says what is missing and what to do."""

import json
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
TOKENIZER = HERE.parent / "demo-model" / "tokenizer.json"
REQUIREMENTS = HERE / "reference" / "requirements.txt"


def program(name):
    if shutil.which(name) is None:
        sys.exit(f"{name} is not on the PATH: install Rust from rustup.rs")


def packages(interpreter, names):
    """Checks that a Python can import these modules."""
    check = "import importlib.util, sys; print(*[n for n in sys.argv[1:] if importlib.util.find_spec(n) is None])"
    try:
        asked = subprocess.run([interpreter, "-c", check, *names], capture_output=True, text=True)
    except OSError as error:
        sys.exit(f"{interpreter} does not start ({error.strerror}): name a Python with the packages of {REQUIREMENTS}")
    if asked.returncode != 0:
        sys.exit(f"{interpreter} is not a Python that works: name one with the packages of {REQUIREMENTS}")
    if asked.stdout.strip():
        missing = ", ".join(asked.stdout.split())
        sys.exit(f"{interpreter} lacks {missing}: install them with {interpreter} -m pip install -r {REQUIREMENTS}")


def lengths(text, folder):
    """Reads the prompt lengths, and checks that the model's context has room for them."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        sys.exit(f"--lengths: expected numbers with commas, as in 13,64,128, found {text!r}")
    n_ctx = json.loads((pathlib.Path(folder) / "config.json").read_text()).get("n_positions", 1024)
    longest = max(int(part) for part in parts)
    if longest > n_ctx:
        sys.exit(f"--lengths: the model of {folder} has {n_ctx} positions, found {longest}")
    return [int(part) for part in parts]


def model(folder, tokenizer):
    """Checks a model folder; with `tokenizer` it must have a tokenizer too."""
    folder = pathlib.Path(folder)
    writer = "crate/benches/side_by_side.py writes one of GPT-2 small's shape into a folder that does not exist"
    if not folder.is_dir():
        sys.exit(f"{folder} is no folder: name one with config.json and model.safetensors ({writer})")
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            sys.exit(f"{folder} has no {name}: name a folder with a GPT-2 in Hugging Face's format ({writer})")
    names = (folder / "tokenizer.json", folder / "vocab.json")
    if tokenizer and not any(name.is_file() for name in names):
        sys.exit(f"{folder} has no tokenizer, and a notebook runs a text: copy one into it, for example {TOKENIZER}")


def kernel(installed, name):
    """Checks that Jupyter has a kernel. `installed` are the names that it has."""
    if name not in installed:
        sys.exit(f"there is no kernel {name!r} here: run `cargo xtask run` first, and start this with its .venv/bin/python")
