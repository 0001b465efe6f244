"""S-13: nothing in claasbot can turn stored or received bytes into code (read from the syntax tree, not by grep)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "claasbot").rglob("*.py"))
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "xml", "lxml"}
CALLS = {"eval", "exec", "compile", "__import__"}
ATTRIBUTES = {("torch", "load"), ("numpy", "load"), ("np", "load"), ("os", "system"), ("os", "popen")}
WORDS = {"shell", "trust_remote_code", "allow_pickle"}
"""Keywords that may be given as False only."""


def troubles_in(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found += [name.name for name in names if name.name.partition(".")[0] in MODULES]
            case ast.ImportFrom(module=str(module)) if module.partition(".")[0] in MODULES:
                found.append(module)
            case ast.Call(func=ast.Name(id=name)) if name in CALLS:
                found.append(name)
            case ast.Attribute(value=ast.Name(id=owner), attr=attr) if (owner, attr) in ATTRIBUTES:
                found.append(f"{owner}.{attr}")
            case ast.keyword(arg=str(word), value=value) if word in WORDS:
                if not (isinstance(value, ast.Constant) and value.value is False):
                    found.append(word)
            case ast.Constant(value="--trust-remote-code"):
                found.append("--trust-remote-code")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_deserialises_or_runs_data(path: Path) -> None:
    assert troubles_in(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "import xml.etree.ElementTree",
        "torch.load(path, weights_only=True)",
        "eval(text)",
        "subprocess.run(words, shell=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=chosen)",
        "np.load(path)",
        "words = ['vllm', '--trust-remote-code']",
    ],
)
def test_the_look_sees_what_it_is_for(line: str) -> None:
    assert troubles_in(line) != []
