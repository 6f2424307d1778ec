"""The documentation is true: its Python runs and prints what stands below it; fields and files that it names exist."""

import contextlib
import io
import re

import pytest

from experiments.configs import lvrpo_scenes, mmrpt_scenes
from tests.source_tree import ROOT

PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
# Whose fields a page may name: the page of a method those of its own config, other pages those of either.
CONFIGS = {"docs/method.md": (mmrpt_scenes,), "docs/lvrpo.md": (lvrpo_scenes,)}
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(r"\bconfig\.(?!json\b)((?:\w+\.)*\w+)")
_FILE = re.compile(r"`((?:[\w.-]+/)+(?:[\w.-]+)?)`")


def name(page):
    return page.relative_to(ROOT).as_posix()


def examples(text):
    """Every Python block as (first line number, code, text of the `text` block right below it or None)."""
    blocks = list(_FENCE.finditer(text))
    for block, below in zip(blocks, [*blocks[1:], None], strict=True):
        if block[1] == "python":
            adjoins = below and below[1] == "text" and not text[block.end() : below.start()].strip()
            yield text.count("\n", 0, block.start(2)) + 1, block[2], below[2] if adjoins else None


def prose(text):
    """The page without its Python, which is executed instead."""
    return _FENCE.sub(lambda block: "" if block[1] == "python" else block[0], text)


def run(page, text):
    """Executes the blocks of a page in one namespace; returns (line, printed, expected) of each with an output."""
    namespace, outputs = {"__name__": "__main__"}, []
    for line, code, expected in examples(text):
        printed = io.StringIO()
        # Blank lines in front make tracebacks name the line of the page.
        program = compile("\n" * (line - 1) + code, page, "exec")
        with contextlib.redirect_stdout(printed):
            exec(program, namespace)
        if expected is not None:
            outputs.append((line, printed.getvalue(), expected))
    return outputs


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_blocks_print_what_the_page_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for line, printed, expected in run(name(page), page.read_text(encoding="utf-8")):
        assert printed == expected, f"{name(page)}, line {line}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_fences_are_closed(page):
    assert page.read_text(encoding="utf-8").count("```") % 2 == 0


def has(config, field):
    """Whether a config has a field, whose name has dots."""
    for key in field.split("."):
        if not hasattr(config, "items") or key not in config:
            return False
        config = config[key]
    return True


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_config_fields_exist(page):
    configs = [module.get_config() for module in CONFIGS.get(name(page), (mmrpt_scenes, lvrpo_scenes))]
    for field in _FIELD.findall(prose(page.read_text(encoding="utf-8"))):
        assert any(has(config, field) for config in configs), f"{name(page)} names config.{field}"


def test_a_missing_field_would_be_found():
    config = mmrpt_scenes.get_config()
    assert has(config, "rl.group_size") and not has(config, "rl.no_such_field")
    assert not has(config, "seed.deeper") and not has(lvrpo_scenes.get_config(), "rl.group_size")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_exist(page):
    for path in _FILE.findall(page.read_text(encoding="utf-8")):
        homes = (ROOT / path, ROOT / "mmrpt_jax" / path)
        assert any(home.exists() for home in homes), f"{name(page)} names {path}"


def test_a_page_is_checked_at_all():
    one, two, three = ("```python\n" + code + "\n```\n" for code in ("x = 1", "print(x)", "print(3)"))
    text = f"a\n{one}\n{two}```text\n2\n```\n{three}b\n```text\n4\n```\n"
    assert list(examples(text)) == [(3, "x = 1\n", None), (7, "print(x)\n", "2\n"), (13, "print(3)\n", None)]
    assert run("page", text) == [(7, "1\n", "2\n")]
    assert prose(text) == "a\n\n\n\n```text\n2\n```\n\nb\n```text\n4\n```\n"
