"""Phones for the tests: Debian's real adbd on arm64 under qemu, each in a root folder laid out as Android's.

adbd lets anybody in, so everything runs in namespaces of its own (user, network, mounts, processes): nothing
is registered or listens outside, no root is needed, and all of it ends with the process that started it.
What is a stub there: getprop (real answers of a real phone's shape), dumpsys, am.
"""

import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

QEMU = "/usr/bin/qemu-aarch64-static"
ROOT_PACKAGES = "adbd,mksh,toybox"
CACHE = Path(os.environ.get("EDGEWISE_CACHE") or Path.home() / ".cache/edgewise")
# Processors by qemu's name, and what they say of themselves: with and without the dot product instructions.
CPUS = {
    "cortex-a76": (
        "0xd0b",
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp asimdrdm asimddp",
    ),
    "cortex-a72": ("0xd08", "fp asimd evtstrm aes pmull sha1 sha2 crc32"),
}
CPUINFO = (
    "processor\t: 0\nBogoMIPS\t: 38.40\nFeatures\t: {features}\nCPU implementer\t: 0x41\n"
    "CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {part}\nCPU revision\t: 3\n\n"
)
PROPS = {
    "ro.product.manufacturer": "Stand-in", "ro.product.model": "Phone", "ro.product.cpu.abi": "arm64-v8a",
    "ro.product.cpu.abilist": "arm64-v8a,armeabi-v7a", "ro.board.platform": "qemu-user",
    "ro.build.version.release": "14", "ro.build.version.sdk": "34",
}  # fmt: skip
STUBS = {
    "getprop": "while IFS='=' read -r key value; do echo \"[$key]: [$value]\"; done < /system/build.prop",
    "dumpsys": "cat /system/etc/dumpsys-$1.txt",
    "am": "echo \"$@\" > /data/local/am-was-called; echo 'Starting: Intent { }'",
}
THERMAL = "IsStatusOverride: false\nThermal Status: 1\nCurrent temperatures from HAL:\n" + (
    "\tTemperature{mValue=41.5, mType=0, mName=cpu0, mStatus=0}\n"
    "\tTemperature{mValue=33.0, mType=3, mName=skin, mStatus=1}\nCurrent cooling devices from HAL:\n"
)
BATTERY = (
    "Current Battery Service state:\n  USB powered: true\n  level: 83\n  scale: 100\n  temperature: 287\n"
)
FILES = {
    "etc/passwd": "shell:x:0:0::/data/local/tmp:/system/bin/sh\n",
    **{
        f"system/etc/cpuinfo{number}": CPUINFO.format(part=part, features=features)
        for number, (part, features) in enumerate(CPUS.values(), 1)
    },
    "system/etc/dumpsys-thermalservice.txt": THERMAL,
    "system/etc/dumpsys-battery.txt": BATTERY,
    "sys/devices/system/cpu/possible": "0\n",
    "sys/devices/system/cpu/present": "0\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
}
# The first process inside. It ends, and all with it, when its standard input does.
INIT = r"""
set -e
mount -t tmpfs -o mode=755 none "$W"
mount -t tmpfs none /run
mount -t proc proc /proc
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
magic='\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
printf '%s' ":arm64:M::$magic:$mask:$QEMU:F" > /proc/sys/fs/binfmt_misc/register
ip link set lo up
mkdir "$W/home"
for i in $(seq "$PHONES"); do
    R="$W/phone$i"
    mkdir "$R" "$R.upper" "$R.work"
    mount -t overlay none -o "lowerdir=$SYSTEM,upperdir=$R.upper,workdir=$R.work" "$R"
    mount -t proc proc "$R/proc"
    mount --bind "$SYSTEM/system/etc/cpuinfo$i" "$R/proc/cpuinfo"
    mount --rbind /dev "$R/dev"
    ip netns add "phone$i"
    ip link add "usb$i" type veth peer name eth0 netns "phone$i"
    ip addr add "10.0.$i.1/24" dev "usb$i"
    ip link set "usb$i" up
    nsenter --net="/run/netns/phone$i" sh -c \
        "ip addr add 10.0.$i.2/24 dev eth0; ip link set eth0 up; ip link set lo up"
done
HOME="$W/home" adb nodaemon server > "$W/server.log" 2>&1 &
echo up
cat > /dev/null
"""
CLIENT = """#!/bin/sh
export HOME={folder}/home
exec nsenter --preserve-credentials --user --net --target {init} {adb} "$@"
"""


def need(condition: object, reason: str) -> None:
    """Skips without it, but not on the machine that checks everything."""
    if condition:
        return
    if os.environ.get("EDGEWISE_ALL_TESTS"):
        pytest.fail(reason)
    pytest.skip(reason)


class Phones:
    """`serials` as adb names them; `env` for commands that are to find them (adb first on PATH)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.serials = [f"10.0.{number + 1}.2:5555" for number in range(len(CPUS))]
        (folder / "inside").mkdir(parents=True)
        where = {"W": str(folder / "inside"), "SYSTEM": str(system()), "QEMU": QEMU, "PHONES": str(len(CPUS))}
        apart = ["--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child"]
        self._outer = subprocess.Popen(
            ["unshare", *apart, "sh", "-c", INIT], env={**os.environ, **where}, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._outer.stdout is not None and self._outer.stderr is not None
        if self._outer.stdout.readline() != "up\n":
            self._outer.kill()
            need(None, f"no phone stand-in here: {self._outer.stderr.read().strip()[-300:]}")
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text()
        self._init = int(children.split()[0])
        self.env = self._client()
        self._adbd: dict[int, str] = {}
        for number in range(len(CPUS)):
            self.start(number)

    def _client(self) -> dict[str, str]:
        (self.folder / "home").mkdir()
        (self.folder / "bin").mkdir()
        client = self.folder / "bin/adb"
        client.write_text(CLIENT.format(folder=self.folder, init=self._init, adb=shutil.which("adb")))
        client.chmod(0o755)
        return {**os.environ, "PATH": f"{client.parent}:{os.environ['PATH']}"}

    def begin(self, *command: str) -> "subprocess.Popen[str]":
        """A command in the namespaces, as their root."""
        enter = ["nsenter", "--preserve-credentials", "--user", "--net", "--mount", "--pid", "--target"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([*enter, str(self._init), *command], text=True, **pipes)

    def inside(self, *command: str) -> str:
        """The same to its end."""
        process = self.begin(*command)
        out, said = process.communicate()
        assert process.returncode == 0, (command, said)
        return out

    def root(self, number: int) -> str:
        """A phone's root folder, for commands inside."""
        return f"{self.folder}/inside/phone{number + 1}"

    def adb(self, number: int, *command: str) -> str:
        done = subprocess.run(["adb", "-s", self.serials[number], *command], env=self.env, check=False,
                              capture_output=True, text=True)  # fmt: skip
        return done.stdout + done.stderr

    def start(self, number: int) -> None:
        """adbd up, and known to the adb server."""
        cpu = list(CPUS)[number]
        script = (
            f"echo $$ > {self.root(number)}.pid; exec nsenter --net=/run/netns/phone{number + 1} "
            f"env -i PATH=/system/bin QEMU_CPU={cpu} /usr/sbin/chroot {self.root(number)} /usr/sbin/adbd"
        )
        self.inside("sh", "-c", f"setsid sh -c '{script}' > {self.root(number)}.log 2>&1 < /dev/null &")
        self.connect(number)

    def connect(self, number: int) -> None:
        self.adb(number, "disconnect", self.serials[number])  # else adb tries again when it thinks fit
        self.wait(lambda: "connected to" in self.adb(number, "connect", self.serials[number]))
        self.wait(lambda: self.adb(number, "get-state") == "device\n")

    def kill(self, number: int) -> None:
        """The cable out: adbd is gone at once. What it had started sees its pipes close."""
        self.inside("sh", "-c", f"kill -9 $(cat {self.root(number)}.pid)")

    def wait(self, what, seconds: float = 60) -> None:
        """Until it holds. Not a bound that says anything: under qemu all is slow."""
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, "the phone stand-in does not come up"
            time.sleep(0.1)

    def close(self) -> None:
        assert self._outer.stdin is not None
        self._outer.stdin.close()
        self._outer.wait(30)


def system() -> Path:
    """The root folder that all phones share, read-only under each: kept in the cache."""
    made_of = repr((ROOT_PACKAGES, STUBS, PROPS, FILES))
    made = CACHE / f"phone-{hashlib.sha256(made_of.encode()).hexdigest()[:12]}"
    if made.is_dir():
        return made
    for tool in ("mmdebstrap", "adb", "unshare", "nsenter", "ip"):
        need(shutil.which(tool), f"no {tool} for the phone stand-in; apt-get install mmdebstrap adb iproute2")
    need(Path(QEMU).exists(), "no qemu for the phone stand-in; apt-get install qemu-user-static")
    beside = made.with_name(f".{made.name}.{os.getpid()}")
    made.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(beside, ignore_errors=True)
    command = [
        "mmdebstrap",
        "--mode=chrootless",
        "--variant=extract",
        "--architectures=arm64",
        f"--include={ROOT_PACKAGES}",
    ]
    done = subprocess.run([*command, "trixie", str(beside)], capture_output=True, text=True, check=False)
    need(done.returncode == 0, f"no phone stand-in: {done.stderr.strip()[-200:]}")
    _as_android(beside)
    beside.rename(made)
    return made


def _as_android(root: Path) -> None:
    for folder in ("proc", "data/local/tmp", "system/bin"):
        (root / folder).mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    (root / "bin").symlink_to("system/bin")
    tools = subprocess.run([QEMU, "-L", str(root), str(root / "usr/bin/toybox")], text=True, check=True,
                           capture_output=True).stdout.split()  # fmt: skip
    for name, target in {"sh": "mksh", **dict.fromkeys(tools, "toybox")}.items():
        (root / "system/bin" / name).symlink_to(f"../../usr/bin/{target}")
    for name, body in STUBS.items():
        (root / "system/bin" / name).write_text(f"#!/system/bin/sh\n{body}\n")
        (root / "system/bin" / name).chmod(0o755)
    (root / "system/build.prop").write_text("".join(f"{key}={value}\n" for key, value in PROPS.items()))
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    _deafen(root / "usr/lib/android-sdk/platform-tools/adbd")


def _deafen(adbd: Path) -> None:
    """adbd listens on vsock as well, which no network namespace holds back: that address is made none."""
    code = adbd.read_bytes()
    assert code.count(b"vsock:%d\0") == 1
    adbd.write_bytes(code.replace(b"vsock:%d\0", b"nosock%d\0"))
