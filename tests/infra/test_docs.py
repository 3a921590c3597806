"""What the pages about containers and Kubernetes tell people to type exists."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest

from tests.infra.infra_files import INFRA, ROOT, check_command, instructions

PAGES = ("docker.md", "kubernetes.md")


def text_of(page: str) -> str:
    return (INFRA / "docs" / page).read_text()


def typed(page: str) -> Iterator[list[str]]:
    """The lines of shell blocks, as words."""
    for block in re.findall(r"```sh\n(.*?)```", text_of(page), re.S):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


def ours(words: list[str]) -> list[str] | None:
    """The command of ours in a line, whatever it is run by."""
    if words[0] == "mw":
        return ["maskwheel", *words[1:]]
    if words[0] == "docker" and "run" in words:
        return words[words.index("maskwheel") :]
    if words[0] == "kubectl" and "--" in words:
        return words[words.index("--") + 1 :]
    return None


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist_and_take_their_options(page: str) -> None:
    found = [command for words in typed(page) if (command := ours(words))]
    inline = re.findall(r"`((?:maskwheel|prefect) [^`]*)`", text_of(page))
    assert found
    for command in [*found, *map(shlex.split, inline)]:
        check_command(command)


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_are_there(page: str) -> None:
    text = text_of(page)
    named = set(re.findall(r"(?:infra|tests)/[\w./-]+\w", text))
    named |= {f"infra/docs/{link}" for link in re.findall(r"\]\((\w+\.md)\)", text)}
    named -= {"infra/.env"}
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_arguments_of_the_build_are_those_of_the_dockerfile() -> None:
    there = {rest.partition("=")[0] for keyword, rest in instructions() if keyword == "ARG"}
    table = {
        name
        for row in re.findall(r"^\| (`[A-Z_`, ]+) \|", text_of("docker.md"), re.M)
        for name in re.findall(r"\w+", row)
    }
    given = set(re.findall(r"--build-arg (\w+)=", text_of("docker.md")))
    assert table == there
    assert given <= there


def test_the_files_of_the_folder_are_all_explained() -> None:
    text = text_of("kubernetes.md")
    for path in (INFRA / "kubernetes").iterdir():
        name = "*.env.example" if path.name.endswith(".env.example") else path.name
        if path.name not in ("namespace.yaml", "prefect.yaml"):
            assert f"`{name}`" in text, name
