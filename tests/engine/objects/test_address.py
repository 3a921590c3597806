from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from engine.config import load_settings
from engine.errors import BadInputError, MissingObjectError, WorkspaceError
from engine.objects import (
    S3Options,
    S3Store,
    absolute_address,
    is_remote,
    open_address,
    open_store,
    parse_s3_address,
    read_address,
)
from engine.objects.s3_client import s3_client


def test_an_address_has_one_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    here = str(tmp_path.resolve())
    assert absolute_address("data") == absolute_address(Path("./x/../data/")) == f"{here}/data"
    assert absolute_address("~/data") == f"{here}/data"
    assert absolute_address(f"file://{here}/a b") == f"{here}/a b"
    assert absolute_address("s3://bucket/a/b///") == "s3://bucket/a/b"
    assert absolute_address("s3://bucket/") == absolute_address("s3://bucket") == "s3://bucket"
    assert is_remote("s3://bucket")
    assert not is_remote(tmp_path)
    for address in ("data", "s3://bucket/a"):
        once = absolute_address(address)
        assert absolute_address(once) == once == open_store(address).address


@pytest.mark.parametrize(
    "address",
    [
        "",
        "s3://",
        "s3:///key",
        "s3://b/key",
        "s3://bucket//key",
        "s3://bucket/../key",
        "s3://bucket/a?b",
        "s3://bucket/a#b",
        "s3://buc ket/a",
        "gs://bucket/a",
        "https://host/a",
        Path("s3://bucket/a"),
    ],
)
def test_other_addresses_are_refused(address: str | Path) -> None:
    with pytest.raises(BadInputError, match="expected"):
        open_store(address)


def test_an_address_that_became_a_path_is_explained() -> None:
    with pytest.raises(BadInputError, match="s3:// loses a slash"):
        open_store(Path("s3://bucket/a"))


def test_keys_in_addresses_are_literal() -> None:
    where = parse_s3_address("s3://my.bucket/a b/%20?x#y//z")
    assert (where.bucket, where.key) == ("my.bucket", "a b/%20?x#y//z")


def test_objects_are_read_wherever_they_are(s3_address: str, tmp_path: Path) -> None:
    (tmp_path / "ä photo.jpg").write_bytes(b"local")
    assert read_address(str(tmp_path / "ä photo.jpg")) == b"local"
    assert read_address(f"file://{tmp_path}/ä photo.jpg") == b"local"
    bucket = parse_s3_address(s3_address).bucket
    odd = "a//b?c#d %20+é.jpg"  # other people's keys
    client = s3_client(S3Options(endpoint=load_settings().s3_endpoint, addressing="path"))
    client.put_object(Bucket=bucket, Key=odd, Body=b"remote")
    uri = f"{s3_address}/{odd}"
    assert read_address(uri) == b"remote"
    assert read_address(uri, max_bytes=6) == b"remote"
    with open_address(uri) as stream:
        assert stream.read(3) == b"rem"
    assert [open_store(s3_address).uri(key) for key in open_store(s3_address).list("")] == [uri]
    for where in (uri, str(tmp_path / "ä photo.jpg")):
        with pytest.raises(BadInputError, match=r"expected at most 4"):
            read_address(where, max_bytes=4)
    for where in (f"{s3_address}/no", f"file://{tmp_path}/no", str(tmp_path / "no")):
        with pytest.raises(MissingObjectError, match="no is missing"):
            read_address(where)


def test_names_that_browsers_leave_for_folders_are_not_objects(s3_address: str) -> None:
    store = open_store(s3_address)
    assert isinstance(store, S3Store)
    s3_client(store.options).put_object(Bucket=store.bucket, Key="folder/", Body=b"")
    store.put_if_absent("folder/key", b"")
    assert list(store.list("")) == ["folder/key"]


def test_a_server_that_lists_out_of_order_is_refused(
    s3_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(s3_address)
    for key in ("1", "2"):
        store.put_if_absent(key, b"")
    listed = S3Store._listed
    monkeypatch.setattr(S3Store, "_listed", lambda *key: reversed(list(listed(*key))))
    with pytest.raises(WorkspaceError, match="ascending"):
        list(store.list(""))


def test_settings_lead_to_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKWHEEL_S3_ENDPOINT", "http://ceph.local:7480")
    monkeypatch.setenv("MASKWHEEL_S3_ADDRESSING", "virtual")
    store = open_store("s3://bucket/x")
    assert isinstance(store, S3Store)
    assert store.options == S3Options(endpoint="http://ceph.local:7480", addressing="virtual")
    monkeypatch.setenv("MASKWHEEL_S3_ENDPOINT", "ceph.local:7480")
    with pytest.raises(BadInputError, match="MASKWHEEL_S3_ENDPOINT"):
        open_store("s3://bucket/x")


WITHOUT_CREDENTIALS = """
from engine.errors import WorkspaceError
from engine.objects import open_store
try: open_store("s3://bucket/x").get("key")
except WorkspaceError as error: print(error)
"""


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ({"AWS_PROFILE": "absent"}, "profile (absent)"),
        ({"AWS_ACCESS_KEY_ID": "half"}, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_missing_credentials_are_named(variables: dict[str, str], message: str) -> None:
    none = {
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
        "MASKWHEEL_S3_ENDPOINT": "http://127.0.0.1:9",
        "HOME": "/nonexistent",
    }
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_CREDENTIALS],
        env={**none, **variables},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    assert message in done.stdout, done.stdout


def test_nothing_heavy_is_imported_for_a_folder(tmp_path: Path) -> None:
    code = (
        "import sys; from engine.objects import open_store\n"
        "open_store('s3://bucket/x'); open_store(sys.argv[1]).put_if_absent('a', b'')\n"
        "sys.exit(str({'boto3', 'botocore', 'pyarrow', 'urllib3'} & set(sys.modules) or ''))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.strip() == ""
