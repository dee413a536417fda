"""Records the numbers, figures and public items of a checkout, and compares two records: a refactoring changes none.

    python tests/same_behaviour.py record CHECKOUT OUTPUT_FOLDER
    python tests/same_behaviour.py compare BEFORE AFTER

`record` builds the examples of a checkout and its documentation as JSON (rustdoc's unstable format), and writes

- `parity.txt`: the example `parity` on both fixtures and the demo model, on the CPU and, for `tiny`, through dfdx;
- `checksums.txt`: the example `checksums` on the same: logits, activations and decoded tokens, bit by bit;
- `heads.txt`: the example `heads` on the demo model for three prompts, without the time of each stage;
- `figures.txt`: every figure stored in the notebooks, as plotly JSON and as SVG, its marks in alphabetical order;
- `api.txt`: every public item with its signature.

`compare` prints the lines that differ, a file at a time, and fails if there are any. It needs nothing but Python and cargo.
"""

import difflib
import json
import os
import pathlib
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

PROMPTS = [
    "The next sentence is false. The previous sentence is true.",
    "When Mary and John went to the store, John gave a drink to",
    "Monday, Tuesday,\n\tWednesday — naïve café 🤖",
]
PLOTLY = "application/vnd.plotly.v1+json"
# Traces, annotations, shapes and menus: plotly draws them in order, and no two of ours overlap.
MARKS = {"data", "annotations", "shapes", "updatemenus"}


def run(command, root, **environment):
    done = subprocess.run(command, cwd=root, env={**os.environ, **environment}, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stderr}")
    return done.stdout


def on_models(program):
    def output(root):
        models = [root / "tests/fixtures/tiny", root / "tests/fixtures/odd", root / "crate/demo-model"]
        runs = [[model] for model in models] + [[models[0], "dfdx_cpu"]]
        return "".join(run([root / "target/release/examples" / program, *arguments], root) for arguments in runs)

    return output


def heads(root):
    program = root / "target/release/examples/heads"
    lines = [line for prompt in PROMPTS for line in run([program, "demo", prompt], root).splitlines()]
    return "\n".join(line for line in lines if not line.startswith("seconds: ")) + "\n"


def canonical(value, key=""):
    """Returns the same JSON with keys and lists of marks in alphabetical order."""
    if isinstance(value, dict):
        return {key: canonical(value[key], key) for key in sorted(value)}
    if isinstance(value, list):
        values = [canonical(value) for value in value]
        return sorted(values, key=json.dumps) if key in MARKS else values
    return value


def svg_marks(svg):
    """Returns each element as JSON, with the attributes that it inherits from its groups."""

    def walk(element, inherited):
        attributes = {**inherited, **element.attrib}
        if "transform" in inherited and "transform" in element.attrib:
            attributes["transform"] = inherited["transform"] + element.attrib["transform"]
        tag = element.tag.rpartition("}")[2]
        if tag not in ("svg", "g"):
            yield json.dumps([tag, attributes, element.text or ""], sort_keys=True, ensure_ascii=False)
        for child in element:
            yield from walk(child, attributes)

    return sorted(walk(ElementTree.fromstring(svg), {}))


def figures(root):
    lines = []
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
        shown = [output["data"] for output in outputs if PLOTLY in output.get("data", {})]
        for number, data in enumerate(shown):
            lines.append(f"== {path.name}, figure {number}: {''.join(data['text/plain'])}")
            lines.append(json.dumps(canonical(data[PLOTLY]), ensure_ascii=False))
            lines.extend(svg_marks("".join(data.get("image/svg+xml", "<svg/>"))))
    return "\n".join(lines) + "\n"


class Api:
    """The public items of a crate, from rustdoc's JSON."""

    def __init__(self, document):
        self.index = document["index"]
        self.lines = set()
        root = self.index[str(document["root"])]
        for item in root["inner"]["module"]["items"]:
            self.item(item, "attention_tokens")

    def item(self, identifier, path):
        item = self.index.get(str(identifier))
        if item is None or item.get("visibility") not in ("public", "default"):
            return
        (kind, inner), = item["inner"].items()
        if kind == "use":
            target = self.index.get(str(inner["id"]))
            if target is None:
                self.lines.add(f"{path}::{inner['name']}: use {inner['source']}")
            elif inner.get("is_glob"):
                for child in target["inner"]["module"]["items"]:
                    self.item(child, path)
            else:
                self.item(inner["id"], path)
            return
        path = f"{path}::{item['name']}"
        if kind == "module":
            for child in inner["items"]:
                self.item(child, path)
        elif kind == "function":
            self.lines.add(f"{path}: {self.signature(inner)}")
        elif kind in ("struct", "enum"):
            self.lines.add(f"{path}: {kind}")
            fields = inner["variants"] if kind == "enum" else self.fields(inner["kind"])
            for field in fields:
                self.field(field, path)
            for block in inner["impls"]:
                self.impl(block, path)
        elif kind == "constant":
            self.lines.add(f"{path}: const {self.type(inner['type'])}")
        elif kind == "type_alias":
            self.lines.add(f"{path}: type {self.type(inner['type'])}")
        else:
            self.lines.add(f"{path}: {kind}")

    @staticmethod
    def fields(kind):
        if not isinstance(kind, dict):
            return []
        return (kind.get("plain") or kind.get("struct") or {}).get("fields", [])

    def field(self, identifier, path):
        field = self.index.get(str(identifier))
        if field is None:
            return
        (kind, inner), = field["inner"].items()
        path = f"{path}::{field['name']}"
        if kind == "struct_field":
            if field["visibility"] in ("public", "default"):
                self.lines.add(f"{path}: {self.type(inner)}")
            return
        self.lines.add(f"{path}: variant")
        for child in self.fields(inner["kind"]):
            self.field(child, path)

    def impl(self, identifier, path):
        block = self.index.get(str(identifier))
        if block is None or block["inner"]["impl"].get("is_synthetic") or block["inner"]["impl"].get("blanket_impl"):
            return
        inner = block["inner"]["impl"]
        if inner["trait"] is not None:
            self.lines.add(f"{path}: impl {self.path(inner['trait'])}")
            return
        for child in inner["items"]:
            self.item(child, path)

    def signature(self, function):
        inputs = ", ".join(f"{name}: {self.type(kind)}" for name, kind in function["sig"]["inputs"])
        output = function["sig"]["output"]
        return f"fn({inputs})" + (f" -> {self.type(output)}" if output else "")

    def path(self, path):
        arguments = (path.get("args") or {}).get("angle_bracketed", {}).get("args", [])
        names = [self.type(argument["type"]) for argument in arguments if "type" in argument]
        name = path.get("path") or path.get("name")
        return name.rpartition("::")[2] + (f"<{', '.join(names)}>" if names else "")

    def type(self, kind):
        if not isinstance(kind, dict):
            return str(kind)
        (name, inner), = kind.items()
        match name:
            case "resolved_path":
                return self.path(inner)
            case "primitive" | "generic":
                return inner
            case "borrowed_ref":
                return ("&mut " if inner["is_mutable"] else "&") + self.type(inner["type"])
            case "slice":
                return f"[{self.type(inner)}]"
            case "array":
                return f"[{self.type(inner['type'])}; {inner['len']}]"
            case "tuple":
                return f"({', '.join(map(self.type, inner))})"
            case "impl_trait":
                return "impl " + " + ".join(self.path(bound["trait_bound"]["trait"]) for bound in inner if "trait_bound" in bound)
            case "dyn_trait":
                return "dyn " + " + ".join(self.path(bound["trait"]) for bound in inner["traits"])
            case _:
                return name


def api(root):
    command = ["cargo", "rustdoc", "--quiet", "--locked", "--package", "attention-tokens", "--lib"]
    command += ["--features", "full", "--", "-Z", "unstable-options", "--output-format", "json"]
    run(command, root, RUSTC_BOOTSTRAP="1", RUSTDOCFLAGS="")
    document = json.loads((root / "target/doc/attention_tokens.json").read_text(encoding="utf-8"))
    return "\n".join(sorted(Api(document).lines)) + "\n"


RECORDS = {
    "parity.txt": on_models("parity"),
    "checksums.txt": on_models("checksums"),
    "heads.txt": heads,
    "figures.txt": figures,
    "api.txt": api,
}


def record(root, folder):
    build = ["cargo", "build", "--quiet", "--release", "--locked", "--package", "attention-tokens", "--features", "full"]
    run([*build, "--examples"], root)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text_of in RECORDS.items():
        text = text_of(root)
        (folder / name).write_text(text, encoding="utf-8")
        print(f"{folder / name}: {len(text.splitlines())} lines")


def compare(before, after):
    different = 0
    for name in RECORDS:
        old, new = ((folder / name).read_text(encoding="utf-8").splitlines() for folder in (before, after))
        changes = [line for line in difflib.unified_diff(old, new, lineterm="", n=0) if not line.startswith(("---", "+++", "@@"))]
        print(f"{name}: {len(old)} lines before, {len(new)} after, {len(changes)} changed")
        for line in changes:
            print(f"  {line[:200]}")
        different += len(changes)
    return different


def main():
    match sys.argv[1:]:
        case ["record", root, folder]:
            record(pathlib.Path(root).resolve(), pathlib.Path(folder).resolve())
        case ["compare", before, after]:
            sys.exit(1 if compare(pathlib.Path(before), pathlib.Path(after)) else 0)
        case _:
            sys.exit(__doc__)


main()
