"""S-13 and what goes with it, read from the syntax trees: bytes never become code, text never becomes a template or a
statement, no weak hash, no secret from a guessable source."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "claasbot").rglob("*.py"))
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "xml", "lxml"}
CALLS = {"eval", "exec", "compile", "__import__"}
ATTRIBUTES = {("torch", "load"), ("numpy", "load"), ("np", "load"), ("os", "system"), ("os", "popen")}
WORDS = {"shell", "trust_remote_code", "allow_pickle"}
"""Keywords that may be given as False only."""


def troubles_in(tree: ast.Module) -> list[str]:
    found = []
    for node in ast.walk(tree):
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


@functools.cache
def sources() -> list[tuple[str, ast.Module]]:
    return [(str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))) for path in SOURCES]


def named_in(*words: str) -> list[str]:
    """Where a module mentions one of them, as a name or an attribute."""
    return [
        f"{path}:{node.lineno} {found}"
        for path, tree in sources()
        for node in ast.walk(tree)
        if (found := getattr(node, "attr", None) or getattr(node, "id", None)) in words
    ]


def test_no_module_deserialises_or_runs_data() -> None:
    assert [f"{path} {trouble}" for path, tree in sources() for trouble in troubles_in(tree)] == []


def test_no_source_makes_templates_of_text() -> None:
    """Jinja reads files of the package; `str.format` is given no template that somebody wrote."""
    assert named_in("from_string", "Template", "format_map") == []


def test_no_archive_of_somebody_is_unpacked() -> None:
    """The one archive that is opened is the wheel of the base model, pinned by its hash."""
    assert named_in("extractall", "unpack_archive", "TarFile", "tarfile", "gunzip") == []


def test_no_weak_hash_and_no_guessable_secret() -> None:
    assert named_in("md5", "sha1", "uuid1", "DES", "ARC4") == []
    of_secrets = ("token", "sign_in", "password", "session", "secret", "key")
    guessable = [place for place in named_in("random") if any(word in Path(place).stem for word in of_secrets)]
    assert guessable == []


def test_certificates_are_checked_as_the_libraries_do() -> None:
    assert named_in("CERT_NONE", "check_hostname", "verify_ssl", "_create_unverified_context") == []
    switched_off = [
        f"{path}:{node.value.lineno}"
        for path, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "ssl" and getattr(node.value, "value", None) is False
    ]
    assert switched_off == []


def test_no_request_says_where_a_redirect_leads() -> None:
    led = [
        f"{path}:{node.lineno}"
        for path, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("HTTPSeeOther", "HTTPFound")
        if {part.id for part in ast.walk(node.args[0]) if isinstance(part, ast.Name)} & {"request", "given", "body"}
    ]
    assert led == []


def test_no_script_keeps_anything_in_the_browser() -> None:
    for script in (ROOT / "templates" / "static").glob("*.js"):
        text = script.read_text(encoding="utf-8")
        assert not [
            word
            for word in ("localStorage", "sessionStorage", "indexedDB", "document.cookie", "postMessage")
            if word in text
        ]


def test_a_statement_is_put_together_from_words_of_the_code_alone() -> None:
    """In `storage`, what stands in braces of a statement is a constant of the module or a column of a closed set."""
    made = [
        f"{path}:{node.lineno}"
        for path, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr) and _is_statement(node)
        if not (path.startswith("claasbot/storage/") and all(_is_of_the_code(value) for value in _put_into(node)))
    ]
    assert made == []


def _is_statement(node: ast.JoinedStr) -> bool:
    text = "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
    return text.lstrip().startswith(("SELECT ", "INSERT ", "UPDATE ", "DELETE "))


def _put_into(node: ast.JoinedStr) -> list[ast.expr]:
    return [part.value for part in node.values if isinstance(part, ast.FormattedValue)]


def _is_of_the_code(value: ast.expr) -> bool:
    """A name, or something made of constants of modules alone."""
    if isinstance(value, ast.Attribute):
        return value.attr.isupper()
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
    assert troubles_in(ast.parse(line)) != []
