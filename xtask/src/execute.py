"""Executes a notebook with nbclient, and writes the executed notebook and a self-contained HTML page.

    python execute.py NOTEBOOK OUTPUT_FOLDER [--store] [--print] [--plain]

--plain makes the crate itself the dependency, in place of the compiled library, and adds `_plain` to the results' names.

evcxr does not report to Jupyter the error that a cell returns with `?`: it prints it to stderr, and the cell counts as
executed. So text on stderr fails the notebook, unless it has cells with the tag `raises-exception`, which fail on
purpose.
"""

import argparse
import copy
import os
import pathlib
import re
import signal
import sys
import threading
import time

import nbformat
import plotly.io
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbconvert import HTMLExporter

PLOTLY = "application/vnd.plotly.v1+json"
COMPILED = re.compile(r':dep attention_tokens_prebuilt = \{ path = "(.*)/prebuilt"(, features = \[.*\])? \}')
PLAIN = r':dep attention-tokens = { path = "\1"\2 }'
# How often a kernel is started that ends before it answers.
STARTS = 3


class Progress:
    """Prints a line when a cell starts, and one every 15 seconds while it runs."""

    def __init__(self, total):
        self.total, self.current, self.running = total, None, True
        threading.Thread(target=self.remind, daemon=True).start()

    def start(self, cell, cell_index):
        if cell.cell_type == "code":
            first_line = cell.source.strip().splitlines()[:1] or [""]
            print(f"  cell {cell_index + 1} of {self.total}: {first_line[0][:80]}", flush=True)
            self.current = (cell_index, time.monotonic())

    def done(self, cell, cell_index, execute_reply):
        self.current = None

    def remind(self):
        while self.running:
            time.sleep(15)
            if self.current:
                index, started = self.current
                print(f"    cell {index + 1} still running, {time.monotonic() - started:.0f} s", flush=True)


def figures(notebook):
    return [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if PLOTLY in output.get("data", {})
    ]


def page(notebook):
    """Returns an HTML page that needs no network: it contains plotly.js once, which draws every figure."""
    notebook = copy.deepcopy(notebook)
    for number, output in enumerate(figures(notebook)):
        html = plotly.io.to_html(
            output.data[PLOTLY], full_html=False, include_plotlyjs=(number == 0), validate=False
        )
        output.data = nbformat.from_dict({"text/html": html})
    exporter = HTMLExporter(mathjax_url="", require_js_url="", jquery_url="", mermaid_js_url="")
    return exporter.from_notebook_node(notebook, resources={"metadata": {"name": title(notebook)}})[0]


def title(notebook):
    """Returns the first heading of a notebook, which becomes the title of its page."""
    for cell in notebook.cells:
        for line in cell.source.splitlines():
            if cell.cell_type == "markdown" and line.startswith("# "):
                return line[2:].strip()
    return "Notebook"


def execute(notebook, folder, progress):
    """Executes the cells of a notebook in a folder, with a new kernel.

    The ports of a kernel are chosen before it starts, and another program can take one in the meantime: the kernel ends
    at once, and is started again.
    """
    for attempt in range(1, STARTS + 1):
        client = NotebookClient(
            notebook,
            timeout=None,
            kernel_name="rust",
            record_timing=False,
            resources={"metadata": {"path": str(folder)}},
            on_cell_start=progress.start,
            on_cell_executed=progress.done,
        )
        try:
            return client.execute()
        except DeadKernelError:
            raise
        except RuntimeError as error:
            if client.code_cells_executed or progress.current or attempt == STARTS:
                raise
            print(f"the kernel is started again: {error}", file=sys.stderr)


def main():
    # An exception, so that nbclient ends the kernel when another notebook has failed and this one is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    parser = argparse.ArgumentParser()
    parser.add_argument("notebook", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--store", action="store_true", help="write the outputs into NOTEBOOK too")
    parser.add_argument("--print", action="store_true", help="print the text outputs of the cells")
    parser.add_argument("--plain", action="store_true", help="depend on the crate itself")
    arguments = parser.parse_args()

    notebook = nbformat.read(arguments.notebook, as_version=4)
    name = arguments.notebook.name
    if arguments.plain:
        name = f"{arguments.notebook.stem}_plain.ipynb"
        changed = [COMPILED.subn(PLAIN, cell.source) for cell in notebook.cells]
        for cell, (source, _) in zip(notebook.cells, changed):
            cell.source = source
        if sum(number for _, number in changed) != 1:
            sys.exit(f"{arguments.notebook}: expected one line that loads the compiled library")
    progress = Progress(len(notebook.cells))
    started = time.monotonic()
    failure = None
    try:
        execute(notebook, arguments.notebook.parent.resolve(), progress)
    except (CellExecutionError, DeadKernelError) as error:
        # nbclient's text may lack the message of the compiler.
        errors = [output for cell in notebook.cells for output in cell.get("outputs", []) if "traceback" in output]
        lines = [str(error), *(line for output in errors for line in output.traceback)]
        failure = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(lines))
    progress.running = False
    seconds = time.monotonic() - started
    if not any("raises-exception" in cell.metadata.get("tags", []) for cell in notebook.cells):
        for index, cell in enumerate(notebook.cells):
            for output in cell.get("outputs", []):
                if output.output_type == "stream" and output.name == "stderr":
                    failure = failure or f"cell {index + 1} printed to stderr: {output.text}"

    arguments.folder.mkdir(parents=True, exist_ok=True)
    executed = arguments.folder / name
    nbformat.write(notebook, executed)
    if failure:
        print(failure, file=sys.stderr)
        sys.exit(1)
    html = executed.with_suffix(".html")
    html.write_text(page(notebook), encoding="utf-8")
    if arguments.store:
        # The compiler's messages depend on the machine and on earlier runs.
        for cell in notebook.cells:
            if "outputs" in cell:
                cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        notebook.metadata.kernelspec = {"display_name": "Rust", "language": "rust", "name": "rust"}
        # Whoever stops this has the former notebook or the new one, not a part of one.
        unfinished = arguments.notebook.with_name(f".{arguments.notebook.name}.unfinished")
        nbformat.write(notebook, unfinished)
        os.replace(unfinished, arguments.notebook)
    if arguments.print:
        streams = [output for cell in notebook.cells for output in cell.get("outputs", []) if "name" in output]
        print("".join(output.text for output in streams))
    cells = sum(cell.cell_type == "code" for cell in notebook.cells)
    print(f"  {cells} cells executed, {len(figures(notebook))} figures, {seconds:.1f} s")
    print(f"  executed notebook: {executed}")
    print(f"  page: {html}", flush=True)


if __name__ == "__main__":
    main()
