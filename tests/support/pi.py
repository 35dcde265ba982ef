"""A Raspberry Pi that is not there: a real arm64 sshd of Debian bookworm under qemu, on loopback.

Extracted once by mmdebstrap (no foreign code runs), kept under EDGEWISE_CACHE, started by proot without any
rights. It gives parity, packaging and exit codes; never latency.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

TOOLS = ("mmdebstrap", "proot", "qemu-aarch64-static", "ssh", "ssh-keygen")
SSH = shutil.which("ssh")  # the real one: tests put a wrapper before it
MACHINES = {"arm64": "aarch64", "armhf": "armv7l", "amd64": "x86_64"}
PACKAGES = ["python3", "openssh-server", "dash", "bash", "coreutils", "libstdc++6"]
MORE = {"arm64": [], "armhf": ["python3-numpy"]}
# Processor → part number and flags as a Pi's kernel shows them (Pi 4, Pi 5; Pi 3 with a 32-bit system).
CPUS = {
    "cortex-a72": ("0xd08", "fp asimd evtstrm crc32 cpuid"),
    "cortex-a76": (
        "0xd0b",
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
    ),
    "cortex-a7": (
        "0xc07",
        "half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae evtstrm",
    ),
}
SSHD = """
ListenAddress 127.0.0.1
Port {port}
HostKey /inst/host_key
AuthorizedKeysFile /inst/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PidFile none
PrintMotd no
PrintLastLog no
UseDNS no
SetEnv QEMU_CPU={cpu}
"""
PASSWD = """root:x:0:0:root:/root:/bin/bash
sshd:x:100:65534::/run/sshd:/usr/sbin/nologin
pi:x:1000:1000::/home/pi:/bin/bash
"""
GROUP = "root:x:0:\nnogroup:x:65534:\npi:x:1000:\n"


def lacking(reason: str) -> None:
    """Skips, but not on the machine that checks everything."""
    if os.environ.get("EDGEWISE_ALL_TESTS"):
        pytest.fail(reason)
    pytest.skip(reason)


def need_pi(*more: str) -> None:
    missing = [tool for tool in (*TOOLS, *more) if shutil.which(tool) is None]
    if missing:
        lacking(f"no {', '.join(missing)}; apt-get install qemu-user-static mmdebstrap proot openssh-client")


def system(arch: str) -> Path:
    """The folder of an extracted Debian, made at the first call."""
    cache = Path(os.environ.get("EDGEWISE_CACHE") or "~/.cache/edgewise").expanduser() / "devices"
    include = [*PACKAGES, *MORE[arch]]
    root = cache / f"bookworm-{arch}-{'-'.join(include)}"
    if root.is_dir():
        return root
    cache.mkdir(parents=True, exist_ok=True)
    beside = cache / f".{arch}.tmp-{os.getpid()}"
    command = ["mmdebstrap", "--quiet", "--variant=extract", f"--architectures={arch}"]
    command += [f"--include={','.join(include)}", "bookworm", str(beside), *_mirror()]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lacking(f"mmdebstrap made no {arch} system: {done.stderr.strip()[-300:]}")
        for folder in ("run/sshd", "inst", "home/pi", "proc"):
            (beside / folder).mkdir(parents=True, exist_ok=True)
        if arch == "armhf":  # run without proot (see `python32`): what it finds under its prefix it takes
            describe_cpu(beside / "proc/cpuinfo", beside / "sys", "cortex-a7", 7)
            libraries = beside / "usr/lib/arm-linux-gnueabihf"
            for name in ("blas", "lapack"):  # the links that installing would have made
                (libraries / f"lib{name}.so.3").symlink_to(f"{name}/lib{name}.so.3")
        (beside / "etc/passwd").write_text(PASSWD)
        (beside / "etc/group").write_text(GROUP)
        for waste in ("usr/share/doc", "usr/share/man", "usr/share/locale", "var/cache/apt", "var/lib/apt"):
            shutil.rmtree(beside / waste, ignore_errors=True)
        beside.rename(root)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return root


def describe_cpu(cpuinfo: Path, sys: Path, cpu: str, architecture: int) -> None:
    """What a Pi's kernel says of its processor; the engines read it, and die of an x86 one."""
    part, flags = CPUS[cpu]
    core = f"Features\t: {flags}\nCPU implementer\t: 0x41\nCPU architecture: {architecture}\n"
    core += f"CPU part\t: {part}\n"
    cpuinfo.write_text("".join(f"processor\t: {number}\n{core}\n" for number in range(4)))
    cores = sys / "devices/system/cpu"
    cores.mkdir(parents=True)
    for name in ("possible", "present", "online"):
        (cores / name).write_text("0-3\n")


def python32() -> tuple[str, ...]:
    """How to start the Python of a 32-bit ARM system, alone: proot does not carry all 32-bit calls."""
    need_pi("qemu-arm-static")
    root = system("armhf")
    return ("qemu-arm-static", "-L", str(root), str(root / "usr/bin/python3.11"))


def _mirror() -> list[str]:
    """Where this machine has bookworm from; without security updates, which a stand-in does not need."""
    command = ["apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)", "Created-By: Packages"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split("\n")
    found = [line.split()[1] for line in listed if line.startswith("bookworm ")]
    return found[:1]


def packages(arch: str, **pins: str) -> Path:
    """A folder with packages for it, installed from wheels once: `packages("arm64", numpy="1.26.4")`."""
    from device_bench.devices import wheels

    about = {"machine": MACHINES[arch], "python": "3.11.2", "libc": ["glibc", "2.36"]}
    found = [wheels.fetch(name.replace("_", "-"), pin, about, print) for name, pin in pins.items()]
    assert all(found), f"no wheel of one of {pins} for {arch}"
    archive = wheels.archive_of(found)
    folder = archive.parents[1] / "installed" / archive.stem
    if not folder.is_dir():
        beside = folder.with_name(f".{folder.name}.tmp-{os.getpid()}")
        shutil.unpack_archive(archive, beside)
        beside.rename(folder)
    return folder


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass
class Pi:
    """A stand-in that can be switched off and on again; what it stores stays in `folder`."""

    folder: Path
    cpu: str = "cortex-a72"
    packages: Path | None = None  # what is installed there beside Debian's own
    disk_mb: int | None = None  # a home of that size, on a file system of its own
    port: int = 0
    process: subprocess.Popen | None = None

    @property
    def address(self) -> str:
        return f"pi@127.0.0.1:{self.port}"

    def make(self) -> "Pi":
        for name in ("home", "tmp"):
            (self.folder / name).mkdir(parents=True)
        for name in ("host_key", "key"):
            keygen(self.folder / name)
        shutil.copy(self.folder / "key.pub", self.folder / "authorized_keys")
        describe_cpu(self.folder / "cpuinfo", self.folder / "sys", self.cpu, 8)
        self.port = free_port()
        (self.folder / "sshd_config").write_text(SSHD.format(port=self.port, cpu=self.cpu))
        return self.on()

    def on(self) -> "Pi":
        here = self.folder
        command = ["proot", "-q", "qemu-aarch64-static", "-0", "-r", str(system("arm64"))]
        binds = {"/dev": "/dev", "/proc": "/proc", here / "cpuinfo": "/proc/cpuinfo", here: "/inst"}
        binds |= {here / "sys": "/sys", here / "home": "/home/pi", here / "tmp": "/tmp"}
        if self.packages:
            binds[self.packages] = "/usr/local/lib/python3.11/dist-packages"
        command += [word for source, at in binds.items() for word in ("-b", f"{source}:{at}")]
        command += ["-w", "/", "/usr/sbin/sshd", "-D", "-e", "-f", "/inst/sshd_config"]
        if self.disk_mb:
            mount = f'mount -t tmpfs -o size={self.disk_mb}m tmpfs "$0" && exec "$@"'
            command = ["unshare", "-rm", "sh", "-c", mount, str(here / "home"), *command]
        with (here / "sshd.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={"PATH": os.environ["PATH"], "QEMU_CPU": self.cpu},
            )  # fmt: skip
        for _ in range(600):
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        lacking(f"the arm64 sshd does not start: {(here / 'sshd.log').read_text()[-300:]}")
        return self

    def processes(self) -> list[int]:
        """What runs on it, sshd itself included."""
        assert self.process is not None
        traced = f"TracerPid:\t{self.process.pid}\n"
        found = []
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                if traced in status.read_text():
                    found.append(int(status.parent.name))
            except OSError:
                continue
        return found

    def off(self) -> None:
        """The plug is pulled."""
        if self.process is None:
            return
        for pid in [*self.processes(), self.process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()

    def home(self) -> Path:
        """Its home, as seen from here."""
        if self.disk_mb:
            assert self.process is not None
            return Path(f"/proc/{self.process.pid}/root{self.folder / 'home'}")
        return self.folder / "home"

    def left(self) -> list[str]:
        """What lies in its home and temporary folder, by name."""
        folders = [self.home(), self.folder / "tmp"]
        return sorted(
            str(path.relative_to(folder))
            for folder in folders
            for path in folder.rglob("*")
            if path.name != ".cache"
        )

    def client(self, folder: Path, key: Path | None = None, known: str | None = None) -> dict[str, str]:
        """An environment whose `ssh` is the system's, with a config of its own: key and known hosts."""
        folder.mkdir(parents=True, exist_ok=True)
        public = (self.folder / "host_key.pub").read_text()
        (folder / "known_hosts").write_text(f"standin {public}" if known is None else known)
        lines = [f"IdentityFile {key or self.folder / 'key'}", "IdentitiesOnly yes", "IdentityAgent none"]
        lines += [f"UserKnownHostsFile {folder / 'known_hosts'}", "GlobalKnownHostsFile none"]
        lines += ["HostKeyAlias standin"]
        (folder / "config").write_text("\n".join(lines) + "\n")
        script = f'#!/bin/sh\nexec {SSH} -F "{folder / "config"}" "$@"\n'
        (folder / "ssh").write_text(script)
        (folder / "ssh").chmod(0o755)
        return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def keygen(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path
