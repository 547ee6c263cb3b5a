"""The parts of requirements/gpu-kit.txt, and which requirements of the packages in a folder stay open. Needs only `packaging`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

MACHINE = {"python_version": "3.12", "python_full_version": "3.12.3", "platform_machine": "x86_64", "sys_platform": "linux", "extra": ""}
"""What markers are read with, wherever the check runs."""


@dataclass
class Needs:
    """`parts`: part -> name -> version, "" where it is not known. `left_out`: (package, requirement of it that is waived)."""

    parts: dict[str, dict[str, str]] = field(default_factory=dict)
    left_out: set[tuple[str, str]] = field(default_factory=set)


def read(file: Path) -> Needs:
    """Lines `name==version` under headings `# [part]`, and lines `# package: name name` under `# [left out]`."""
    needs, part = Needs(), ""
    for line in file.read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"# \[([a-z -]+)\]", line):
            part = heading[1]
        elif part == "left out" and (waived := re.match(r"# (\S+): (.+)", line)):
            needs.left_out |= {(waived[1], name) for name in waived[2].split()}
        elif line and not line.startswith("#"):
            name, _, version = line.partition("==")
            needs.parts.setdefault(part, {})[canonicalize_name(name)] = version
    return needs


def unmet(folders: list[Path], versions: Mapping[str, str], left_out: set[tuple[str, str]]) -> list[str]:
    """One line for each requirement of a package in the folders that `versions` (name -> version, "" fits any bound) does not meet."""
    lines = []
    for package in metadata.distributions(path=[str(folder) for folder in folders]):
        owner = canonicalize_name(package.metadata["Name"])
        for requirement in map(Requirement, package.requires or []):
            name = canonicalize_name(requirement.name)
            if (owner, name) in left_out or (requirement.marker and not requirement.marker.evaluate(MACHINE)):
                continue
            version = versions.get(name)
            if version is None:
                lines.append(f"{owner} needs {requirement}, which is not there")
            elif version and not requirement.specifier.contains(version, prereleases=True):
                lines.append(f"{owner} needs {requirement}, and {version} is there")
    return sorted(set(lines))
