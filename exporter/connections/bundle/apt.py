"""apt on folders of its own: packages of any Debian release and architecture, by the machine's own sources and keys."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from exporter.connections.response import printable
from exporter.core.errors import SetupError
from safeio import files

_TIME_LIMIT_S = 600


@dataclass(frozen=True)
class Package:
    """A package file, with the SHA-256 that the archive's signed list has for it."""

    name: str
    version: str
    sha256: str
    file: Path

    @property
    def part(self) -> dict[str, str]:
        """Return name, version and SHA-256, as the bundle records them."""
        return {"name": self.name, "version": self.version, "sha256": self.sha256}

    def whole(self) -> bool:
        """Say whether the file is there, with all its bytes."""
        return self.file.exists() and files.sha256(self.file) == self.sha256


def why_not() -> str | None:
    """Return which of apt's tools this machine lacks, and what to do; None for none."""
    tools = ("apt-get", "apt-cache", "apt-config", "dpkg")
    lacking = next((tool for tool in tools if shutil.which(tool) is None), None)
    if lacking is None:
        return None
    return f"{lacking} is not on the PATH; the ARM64 bundle is made of packages of Debian, on Debian"


class Apt:
    """apt with state, cache and sources in `folder`; raises SetupError for all that apt cannot do."""

    def __init__(self, folder: Path) -> None:
        lacking = why_not()
        if lacking is not None:
            raise SetupError(lacking)
        self._folder = folder

    def update(self, releases: Sequence[str]) -> None:
        """Fetch the package lists of these releases, from the Debian archives that the machine's own sources name."""
        for name in ("state/lists/partial", "cache/archives/partial", "log", "sources", "packages"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        stanzas = sorted(set(archives()))
        if not stanzas:
            raise SetupError("the apt sources of this machine name no Debian archive; add one to them")
        text = "\n\n".join(f"{stanza}\nSuites: {release}" for stanza in stanzas for release in releases)
        (self._folder / "sources" / "bundle.sources").write_text(text + "\n", encoding="utf-8")
        (self._folder / "status").touch()
        (self._folder / "apt.conf").write_text(
            f'Dir::State "{self._folder}/state";\nDir::State::status "{self._folder}/status";\n'
            f'Dir::Cache "{self._folder}/cache";\nDir::Log "{self._folder}/log";\n'
            f'Dir::Etc::SourceList "/dev/null";\nDir::Etc::SourceParts "{self._folder}/sources";\n'
            'APT::Architecture "arm64";\nAPT::Architectures { "arm64"; "amd64"; };\nAPT::Sandbox::User "";\n'
            'Acquire::Languages "none";\nAcquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";\n'
            'Debug::NoLocking "1";\nAPT::Update::Post-Invoke-Success "";\n',
            encoding="utf-8",
        )
        self._run(["apt-get", "--quiet=2", "update"], "apt could not read the package lists", self._folder)

    def download(self, wanted: Sequence[tuple[str, str, str]]) -> list[Package]:
        """Fetch packages, each given as release, name and architecture; whole ones from before stay."""
        words = {name: f"{name}:{architecture}/{release}" for release, name, architecture in wanted}
        failure = f"apt could not fetch {', '.join(words.values())}"
        command = ["apt-get", "--quiet=2"]
        printed = self._run([*command, "--print-uris", "download", *words.values()], failure, self._folder)
        packages = []
        for file, sha256 in re.findall(r"^'[^']*' (\S+) \d+ SHA256:([0-9a-f]{64})", printed, re.M):
            name, version, _ = file.removesuffix(".deb").split("_")
            packages.append(Package(name, version.replace("%3a", ":"), sha256, self._folder / "packages" / file))
        absent = words.keys() - {package.name for package in packages}
        if absent:
            raise SetupError(f"apt could not fetch {', '.join(sorted(words[name] for name in absent))}: not offered")
        missing = [words[package.name] for package in packages if not package.whole()]
        if missing:
            self._run([*command, "download", *missing], failure, self._folder / "packages")
        if not all(package.whole() for package in packages):
            raise SetupError(f"{failure}: what came is not what the archive's list says")
        return packages

    def unpack(self, package: Package, folder: Path) -> None:
        """Unpack the files of a package; nothing of it is run."""
        folder.mkdir(parents=True, exist_ok=True)
        self._run(["dpkg", "--extract", str(package.file), str(folder)], "it cannot be unpacked", folder)

    def _run(self, command: Sequence[str], failure: str, cwd: Path) -> str:
        environment = {**os.environ, "APT_CONFIG": str(self._folder / "apt.conf"), "LC_ALL": "C"}
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                env=environment,
                cwd=cwd,
                timeout=_TIME_LIMIT_S,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SetupError(f"{failure}: {printable(str(error))}") from error
        if done.returncode != 0:
            errors = [line for line in done.stderr.splitlines() if line.startswith("E: ")]
            raise SetupError(f"{failure}: {printable(' '.join(errors[:2]) or done.stderr)}")
        return done.stdout


def archives() -> Iterator[str]:
    """Yield a deb822 stanza without suites for each Debian archive in the machine's sources, with its own keys."""
    shown = subprocess.run(
        ["apt-config", "shell", "LIST", "Dir::Etc::sourcelist/f", "PARTS", "Dir::Etc::sourceparts/d"],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    places = dict(re.findall(r"^(\w+)='(.*)'$", shown, re.M))
    files = [Path(places["LIST"])] if "LIST" in places else []
    files += sorted(Path(places["PARTS"]).glob("*")) if "PARTS" in places else []
    for file in files:
        if file.suffix == ".sources" and file.is_file():
            for stanza in re.split(r"\n\s*\n", file.read_text(encoding="utf-8", errors="replace")):
                yield from _of_stanza(stanza)
        elif file.suffix == ".list" and file.is_file():
            for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
                yield from _of_line(line)


def _of_stanza(stanza: str) -> Iterator[str]:
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line.startswith("#"):
            continue
        if line[:1].isspace():
            fields[name] += "\n" + line
        elif ":" in line:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()
    if "deb" in fields.get("types", "").split() and fields.get("enabled", "yes") != "no":
        keys = fields.get("signed-by")
        for uri in fields.get("uris", "").split():
            yield from _stanza(uri, keys)


def _of_line(line: str) -> Iterator[str]:
    found = re.match(r"^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s", line)
    if found:
        keys = re.search(r"signed-by=(\S+)", found.group(1) or "")
        yield from _stanza(found.group(2), keys.group(1) if keys else None)


def _stanza(uri: str, keys: str | None) -> Iterator[str]:
    if uri.rstrip("/").endswith("/debian"):
        yield f"Types: deb\nURIs: {uri}\nComponents: main" + ("" if keys is None else f"\nSigned-By: {keys}")
