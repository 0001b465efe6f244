"""S-13 and what goes with it, read from the syntax trees: bytes never become code, text never becomes a template or a
statement, no weak hash, no secret from a guessable source."""

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


every_source = pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))


@every_source
def test_no_module_deserialises_or_runs_data(path: Path) -> None:
    assert troubles_in(path.read_text(encoding="utf-8")) == []


def used_names(path: Path) -> set[str]:
    """Every attribute and name that a module mentions."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    return {node.attr for node in nodes if isinstance(node, ast.Attribute)} | {
        node.id for node in nodes if isinstance(node, ast.Name)
    }


@every_source
def test_no_source_makes_templates_of_text(path: Path) -> None:
    """Jinja reads files of the package; `str.format` is given no template that somebody wrote."""
    assert not used_names(path) & {"from_string", "Template", "format_map"}


@every_source
def test_no_archive_of_somebody_is_unpacked(path: Path) -> None:
    """The one archive that is opened is the wheel of the base model, pinned by its hash."""
    opens_archives = used_names(path) & {"extractall", "unpack_archive", "TarFile", "tarfile", "gunzip"}
    assert not opens_archives


@every_source
def test_no_weak_hash_and_no_guessable_secret(path: Path) -> None:
    names = used_names(path)
    assert not names & {"md5", "sha1", "uuid1", "DES", "ARC4"}
    if "token" in path.stem or "sign_in" in path.stem or "password" in path.stem or "session" in path.stem:
        assert "random" not in names


@every_source
def test_a_statement_is_put_together_from_words_of_the_code_alone(path: Path) -> None:
    """In `storage`, what stands in braces of a statement is a constant of the module or a column of a closed set."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    words = ("SELECT ", "INSERT ", "UPDATE ", "DELETE ")
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(part.value for part in node.values if isinstance(part, ast.Constant))
            if text.lstrip().startswith(words):
                assert "storage" in path.parts, f"line {node.lineno}: only storage writes statements"
                put_in = [part.value for part in node.values if isinstance(part, ast.FormattedValue)]
                assert all(_is_of_the_code(value) for value in put_in), f"line {node.lineno}"


def _is_of_the_code(value: ast.expr) -> bool:
    """A name, or something made of the module's constants alone."""
    names = [node.id for node in ast.walk(value) if isinstance(node, ast.Name)]
    return isinstance(value, ast.Name) or all(name.isupper() for name in names)


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
