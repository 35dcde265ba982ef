import phone
import pytest


@pytest.fixture(scope="session")
def phones(tmp_path_factory):
    """Two phones behind a real adb, see tests/support/phone.py."""
    found = phone.Phones(tmp_path_factory.mktemp("phones") / "stand-in")
    yield found
    found.close()


def keep_kit(phones, number):
    """The kit on a phone as EDGEWISE_KEEP_KIT would have left it (a push takes long under qemu)."""
    from device_bench.devices.adb import KITS
    from device_bench.devices.kit import kit

    made = kit(print)
    folder = f"{phones.root(number)}{KITS}/{made.digest}"
    phones.inside("mkdir", "-p", folder)
    phones.inside("tar", "xzf", str(made.path), "-C", folder, "--no-same-owner")
    return folder


@pytest.fixture(scope="session")
def kept_kit(phones):
    """On the second phone, for all tests."""
    return keep_kit(phones, 1)


@pytest.fixture
def other_kept_kit(phones, kept_kit):
    """On the first one, for one test."""
    yield keep_kit(phones, 0)
    phones.adb(0, "shell", "rm -rf /data/local/tmp/edgewise-kit")
