from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from pipeline.conditional_writes import create_file
from pipeline.data.units.lease import LEASE, Lease
from pipeline.errors import InUseError
from pipeline.storage import Folder
from tests.factories.s3 import Outage, s3_bucket

WRITERS = 4


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_bucket("conditional") as uri:
        yield uri


@pytest.fixture(params=["local", "s3"])
def folder(request, tmp_path) -> Folder:
    if request.param == "local":
        return Folder.at(tmp_path)
    return Folder.at(f"{request.getfixturevalue('bucket')}/{tmp_path.name}")


def test_a_file_is_created_once_and_never_replaced(folder):
    assert create_file(folder, "a.json", b"first") is True
    assert create_file(folder, "a.json", b"second") is False
    assert folder.read_bytes("a.json") == b"first"
    assert folder.files() == ["a.json"]
    assert folder.sweep() == 0


def test_of_writers_that_start_at_once_one_creates_the_file(folder):
    barrier = Barrier(WRITERS)

    def write(number: int) -> bool | None:
        barrier.wait(60)
        return create_file(folder, "a", str(number).encode())

    with ThreadPoolExecutor(WRITERS) as pool:
        found = list(pool.map(write, range(WRITERS)))
    assert sorted(map(str, found)) == ["False"] * (WRITERS - 1) + ["True"]
    assert folder.read_bytes("a") == str(found.index(True)).encode()


def test_of_drivers_that_start_at_once_one_holds_the_lease(folder):
    barrier, entered, left = Barrier(WRITERS), [], Barrier(WRITERS)

    def drive(number: int) -> bool:
        barrier.wait(60)
        try:
            with Lease(folder, f"driver {number}"):
                entered.append(number)
                left.wait(60)
                return True
        except InUseError:
            left.wait(60)
            return False

    with ThreadPoolExecutor(WRITERS) as pool:
        assert sum(pool.map(drive, range(WRITERS))) == len(entered) == 1
    assert not folder.exists(LEASE)


def test_a_damaged_lease_gives_way(folder):
    folder.write_bytes(LEASE, b"{")
    with Lease(folder, "scan"):
        assert folder.read_json(LEASE)["job"] == "scan"
    assert not folder.exists(LEASE)


def test_storage_without_conditions_says_so_and_writes_nothing(tmp_path, monkeypatch, bucket):
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    assert create_file(Folder.at(tmp_path), "a", b"x") is None
    assert create_file(Folder.at(f"memory://{tmp_path.name}"), "a", b"x") is None
    other = Folder.at(f"{bucket}/without")
    monkeypatch.setitem(sys.modules, "boto3", None)
    assert create_file(other, "a", b"x") is None
    assert (Folder.at(tmp_path).files(), other.files()) == ([], [])


@pytest.mark.parametrize("step", ["replace", "link"])
def test_a_file_that_another_driver_sweeps_amid_the_creation_is_not_created(
    tmp_path, monkeypatch, step
):
    folder, original = Folder.at(tmp_path), getattr(os, step)

    def swept_before(source, target):
        assert folder.sweep() == 1
        return original(source, target)

    monkeypatch.setattr(os, step, swept_before)
    assert create_file(folder, "a", b"x") is None
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_refuses_conditions_falls_back():
    outage = Outage()
    with s3_bucket("old-store", outage) as uri:
        folder = Folder.at(uri)
        outage.share, outage.status = 1.0, "501 Not Implemented"
        assert create_file(folder, "a", b"x") is None
        outage.share = 0.0
        assert not folder.exists("a")


def test_credentials_or_an_endpoint_in_the_uri_are_left_to_pyarrow(bucket):
    endpoint = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://")
    uri = f"{bucket}/own?scheme=http&endpoint_override={endpoint}"
    assert create_file(Folder.at(uri), "a", b"x") is None
