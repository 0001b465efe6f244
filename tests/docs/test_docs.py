"""The documentation tells the truth: made pages are fresh, links lead somewhere, named modules and commands exist."""

import argparse
import importlib.util
import re
from pathlib import Path

import pytest

from claasbot.cli import parser

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def generator():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["settings.md", "commands.md", "operations.md"])
def test_a_made_page_is_fresh(name):
    page = generator().PAGES[name]()
    assert (ROOT / "docs" / name).read_text() == page, "run `python docs/generate.py`"


def test_what_is_given_without_a_dash_is_named():
    page = generator().commands_page()
    assert "`CODE` the code that the stranger was told" in page
    assert "``" not in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_that_are_named_exist(page):
    for path in re.findall(r"`((?:claasbot|tests|docs|templates|data/suites)/[\w./]+)`", page.read_text()):
        assert (ROOT / path.removesuffix("/")).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_named_exist(page):
    choices = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction)).choices
    for name in re.findall(r"`claasbot ([a-z][a-z-]*)", page.read_text()):
        assert name in choices, name


def test_the_tree_in_the_readme_is_the_tree():
    tree = (ROOT / "README.md").read_text().split("<!-- tree -->")[1]
    named = set(re.findall(r"^│?\s*[├└]── ([\w.]+)/? ", tree, re.MULTILINE)) | set(
        re.findall(r"(?<=[ ·])(\w+\.py)", tree)
    )
    there = {
        path.name
        for path in (ROOT / "claasbot").iterdir()
        if (path.is_dir() and (path / "__init__.py").exists()) or path.suffix == ".py"
    }
    assert there - {"__init__.py", "__main__.py"} <= named


def test_every_test_that_the_page_of_faults_names_exists():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "faults.md").read_text()))
    assert named <= {path.stem for path in (ROOT / "tests" / "faults").glob("test_*.py")}
