"""What stands around the code: one version, workflows that call `.ci/run`, and pins that agree with each other."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import REPOSITORY

WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
TEMPLATES = sorted((REPOSITORY / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
FORM_PARTS = {"markdown", "textarea", "input", "dropdown", "checkboxes"}
PIN = re.compile(r"([A-Za-z0-9_.-]+)==([\w.]+)")


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file; `on` is YAML 1.1's word for true."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {"on" if key is True else key: value for key, value in content.items()}


def pins(name: str) -> dict[str, str]:
    """Package → version of a requirements file, each of whose lines is a pin or a comment."""
    found: dict[str, str] = {}
    for line in (REPOSITORY / name).read_text(encoding="utf-8").splitlines():
        code = line.partition("#")[0].strip()
        if code:
            pin = PIN.fullmatch(code)
            assert pin, f"{name}: {line} is no pin"
            assert pin[1] not in found, f"{name}: {pin[1]} twice"
            found[pin[1].lower().replace("_", "-")] = pin[2]
    return found


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    """All steps of all its jobs."""
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def targets() -> set[str]:
    """What make can make."""
    text = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([\w-]+):", text, flags=re.MULTILINE))


def test_the_version_is_the_same_everywhere() -> None:
    """pyproject.toml has it; the changelog's first entry and the citation follow."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    entries = re.findall(r"^## \[(.*?)\]", (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    citation = read_yaml(REPOSITORY / "CITATION.cff")
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert next(entry for entry in entries if entry != "Unreleased") == project["version"] == citation["version"]
    assert citation["license"] == project["license"]


def test_a_citation_has_what_its_format_asks_for() -> None:
    """The fields that Citation File Format 1.2.0 requires, of the work and of each reference."""
    citation = read_yaml(REPOSITORY / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    for work in [citation, *citation["references"]]:
        assert work["type"] in {"software", "dataset", "conference-paper", "article"}
        assert all(
            {"name"} <= set(author) or {"family-names", "given-names"} <= set(author) for author in work["authors"]
        )


def test_a_workflow_calls_what_continuous_integration_runs() -> None:
    """On pushes and pull requests, and on both ends of the range of transformers."""
    workflow = read_yaml(REPOSITORY / ".github" / "workflows" / "ci.yml")
    assert {"push", "pull_request"} <= set(workflow["on"])
    commands = [step["run"] for step in steps(workflow) if "run" in step]
    assert "bash .ci/run" in commands
    assert "make test-${{ matrix.range }}" in commands
    assert workflow["jobs"]["transformers"]["strategy"]["matrix"]["range"] == ["oldest", "newest"]
    assert {"test-oldest", "test-newest"} <= targets()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_may_do_little_and_name_what_is_there(path: Path) -> None:
    """They read the code and no more, actions have a version, no text of an event is run, and jobs end."""
    workflow = read_yaml(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in workflow["on"]
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 120
        assert "permissions" not in job
    for step in steps(workflow):
        if "uses" in step:
            assert re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"])
        if step.get("uses", "").startswith("actions/checkout"):
            assert step["with"]["persist-credentials"] is False
        if step.get("uses", "").startswith("actions/setup-python"):
            asked = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
            assert asked["requires-python"] == f">={step['with']['python-version']}"
        command = step.get("run", "")
        assert "github.event" not in command
        if command.startswith("make ") and "${{" not in command:
            assert set(command.split()[1:]) <= targets()


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_issue_forms_are_of_the_form_that_github_takes(path: Path) -> None:
    """Else GitHub shows none and says nothing."""
    form = read_yaml(path)
    if path.name == "config.yml":
        assert form == {"blank_issues_enabled": False}
        return
    assert set(form) == {"name", "description", "labels", "body"}
    ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
    assert len(set(ids)) == len(ids) > 0
    for part in form["body"]:
        assert part["type"] in FORM_PARTS
        needed = "value" if part["type"] == "markdown" else "label"
        assert isinstance(part["attributes"][needed], str)
        assert set(part) <= {"type", "id", "attributes", "validations"}


def test_the_claimed_range_is_the_one_that_is_tested() -> None:
    """pyproject.toml claims all from the oldest pin to the newest one's minor, and the pinned one lies between."""
    oldest, pinned, newest = (pins(f"requirements{end}.txt")["transformers"] for end in ("-oldest", "", "-newest"))
    numbers = [tuple(map(int, version.split("."))) for version in (oldest, pinned, newest)]
    assert numbers == sorted(numbers)
    claimed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["two-stage-bert"]
    major, minor, _ = numbers[2]
    assert claimed == {"transformers": f">={oldest},<{major}.{minor + 1}"}


@pytest.mark.parametrize("name", sorted(path.name for path in REPOSITORY.glob("requirements*.txt")))
def test_every_requirement_is_pinned(name: str) -> None:
    """To one version, so that two set-ups are the same."""
    assert pins(name)


def test_the_ci_script_runs_all_checks() -> None:
    """It is shell that parses, and every target that it makes is there."""
    script = REPOSITORY / ".ci" / "run"
    subprocess.run(["bash", "-n", str(script)], check=True)
    made = re.findall(r"^make ([\w-]+)", script.read_text(encoding="utf-8"), re.MULTILINE)
    assert {"check", "test", "test-slow"} <= set(made) <= targets()
