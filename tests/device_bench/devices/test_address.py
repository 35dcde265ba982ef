"""What is taken as the address of a host over SSH."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_bench.devices.ssh import parse
from runtimes.errors import InputError


@pytest.mark.parametrize(
    "address, parts",
    [
        ("pi@raspberrypi.local", ("raspberrypi.local", "pi", None)),
        ("pi@10.0.0.7:2222", ("10.0.0.7", "pi", 2222)),
        ("my-alias", ("my-alias", None, None)),
        ("a.b_c+d$@host", ("host", "a.b_c+d$", None)),
        ("pi@[fe80::1%eth0]:22", ("fe80::1%eth0", "pi", 22)),
        ("[::1]", ("::1", None, None)),
    ],
)
def test_an_address_is_taken_apart(address, parts):
    found = parse(address)
    assert (found.host, found.user, found.port) == parts


@pytest.mark.parametrize(
    "address",
    [
        "", "@host", "pi@", "pi@host:", "pi@host:0", "pi@host:65536", "pi@host:x", "pi@host:22:22", "::1",
        "-oProxyCommand=x", "pi@-oProxyCommand=x", "-l@host", "a b@host", "pi@ho st", "pi@$(x)", "`x`@host",
        "pi;x@host", "pi@host/x", "pi@[::1", "pi@[::1]22", "pi@[host]", "pi@host\n", "pi@ho'st", "pi@h%h",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(address):
    with pytest.raises(InputError, match="name a host as USER@HOST"):
        parse(address)


@given(st.text(max_size=30))
def test_no_address_gives_ssh_an_option_or_a_shell_a_word(text):
    try:
        found = parse(text)
    except InputError:
        return
    for word in (found.host, found.user or "pi"):
        assert re.fullmatch(r"[\w.+:%$-]+", word, re.ASCII) and not word.startswith("-")
