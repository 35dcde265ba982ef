"""A real S3 endpoint of the tests' own: Ceph's RADOS gateway, with one monitor and one store in memory.

`apt-get install --no-install-recommends radosgw ceph-mon ceph-osd`. Everything listens on loopback only, in a
folder of its own, and ends with the test.
"""

import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from contextlib import contextmanager

import pytest

KEY, SECRET = "tests", "tests-secret-of-loopback-only"
PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph")
CONFIG = """[global]
fsid = {fsid}
mon host = v1:127.0.0.1:{mon}
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind msgr2 = false
auth cluster required = none
auth service required = none
auth client required = none
auth allow insecure global id reclaim = true
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd crush chooseleaf type = 0
mon allow pool size one = true
mon data avail crit = 1
osd objectstore = memstore
memstore device bytes = 1073741824
mon data = {folder}/mon
osd data = {folder}/osd
run dir = {folder}
admin socket = {folder}/$name.asok
log file = {folder}/$name.log
crash dir = {folder}
keyring = {folder}/keyring
rgw data = {folder}/rgw
rgw dns name = 127.0.0.1
debug rgw = 0
"""


def need_s3():
    """Skips where Ceph is not installed, but not on the machine that checks everything."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing and os.environ.get("EDGEWISE_ALL_TESTS"):
        pytest.fail(f"no {', '.join(missing)}; apt-get install radosgw ceph-mon ceph-osd")
    if missing:
        pytest.skip(f"no {', '.join(missing)}: no S3 endpoint of the tests' own")


@contextmanager
def s3(folder):
    """`storage_options` of an endpoint with an empty bucket named `tests`."""
    need_s3()
    config, port, mon = folder / "ceph.conf", free_port(), free_port()
    fsid, disk = str(uuid.uuid4()), str(uuid.uuid4())
    config.write_text(CONFIG.format(fsid=fsid, folder=folder, mon=mon))
    for name in ("mon", "osd", "rgw"):
        (folder / name).mkdir()
    running = []

    def start(*command):
        running.append(subprocess.Popen([*command, "-c", config, "-f"], cwd=folder, **QUIET))

    def do(*command):
        subprocess.run([*command, "-c", config], cwd=folder, check=True, timeout=120, **QUIET)

    def up():
        if running[-1].poll() is not None:  # it gives up where it asks before the monitor's map has come
            start("ceph-osd", "-i", "0")
        return b'"num_up_osds":1' in heard("ceph", "osd", "stat", "--format=json", "-c", config)

    try:
        place = f"[v1:127.0.0.1:{mon}]"
        do("monmaptool", "--create", "--fsid", fsid, "--addv", "a", place, folder / "map")
        do("ceph-mon", "--mkfs", "-i", "a", "--monmap", folder / "map")
        start("ceph-mon", "-i", "a")
        until(lambda: heard("ceph", "osd", "new", disk, "-c", config))
        do("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk)
        start("ceph-osd", "-i", "0")
        until(up)
        do("radosgw-admin", "user", "create", "--uid=tests", "--display-name=tests",
           f"--access-key={KEY}", f"--secret-key={SECRET}")  # fmt: skip
        start("radosgw", "-n", "client.rgw", f"--rgw-frontends=beast endpoint=127.0.0.1:{port}")
        until(lambda: answers(f"http://127.0.0.1:{port}"))
        make_bucket(port)
        yield {
            "aws_endpoint": f"http://127.0.0.1:{port}",
            "aws_access_key_id": KEY,
            "aws_secret_access_key": SECRET,
            "aws_region": "us-east-1",
            "allow_http": "true",
        }
    finally:
        for process in reversed(running):
            process.kill()
            process.wait()


def make_bucket(port):
    from pyarrow.fs import S3FileSystem

    keys = {"access_key": KEY, "secret_key": SECRET, "region": "us-east-1"}
    place = {"endpoint_override": f"127.0.0.1:{port}", "scheme": "http"}
    S3FileSystem(**keys, **place, allow_bucket_creation=True).create_dir("tests")


QUIET = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def heard(*command):
    """What it prints; nothing where it fails, as all may that ask before the monitor's map has come."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60, check=False)
    return b"" if done.returncode else done.stdout


def answers(address):
    try:
        return bool(urllib.request.urlopen(address, timeout=5))
    except (OSError, urllib.error.URLError):
        return False


def until(true, seconds=120):
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"Ceph did not start within {seconds} s")
        time.sleep(0.2)
