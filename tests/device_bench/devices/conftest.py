import phone
import pytest


@pytest.fixture(scope="session")
def phones(tmp_path_factory):
    """Two phones behind a real adb, see tests/support/phone.py."""
    found = phone.Phones(tmp_path_factory.mktemp("phones") / "stand-in")
    yield found
    found.close()


@pytest.fixture(scope="session")
def kept_kit(phones):
    """The kit on the second phone, as EDGEWISE_KEEP_KIT would have left it (a push takes long under qemu)."""
    from device_bench.devices.adb import KITS
    from device_bench.devices.kit import kit

    made = kit(print)
    folder = f"{phones.root(1)}{KITS}/{made.digest}"
    phones.inside("mkdir", "-p", folder)
    phones.inside("tar", "xzf", str(made.path), "-C", folder, "--no-same-owner")
    return made
