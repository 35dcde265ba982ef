"""Weak machines to try a bundle under: limits for this machine, no models of the real ones."""

from dataclasses import dataclass

from runtimes.errors import InputError

PERIOD_MS = 10  # a longer period would show as pauses of most of it in every percentile
LEAST_MS = 1  # the kernel grants no less a period


@dataclass(frozen=True)
class Profile:
    """Limits: cores (as far as there are so many), memory in MB, and a thread's share of a core."""

    stands_for: str
    cores: int
    memory_mb: int
    share: float

    def quota_ms(self, threads: int) -> float:
        """Processor time of all threads together in a period of PERIOD_MS."""
        return max(LEAST_MS, self.share * PERIOD_MS * min(threads, self.cores))


# Cores and memory are the makers' figures. The shares are guesses: about what public single-core scores of
# these chips are beside those of a server's core of these years, rounded; for pi-zero that would be less than
# the kernel's least. They scale this machine's speed down and change nothing else: caches, memory bandwidth
# and instruction sets stay those of this machine, so fp32 against int8 may come out otherwise than there.
PROFILES = {
    "pi-zero": Profile("a Raspberry Pi Zero 2 W (4 Cortex-A53 at 1 GHz, 512 MB)", 4, 512, 0.10),
    "pi4": Profile("a Raspberry Pi 4 (4 Cortex-A72 at 1.5 GHz, 2 GB)", 4, 2048, 0.20),
    "phone-low": Profile("an entry-level phone (8 Cortex-A55 at 2 GHz, 2 GB)", 8, 2048, 0.15),
}


def profile(name: str) -> Profile:
    """The profile of that name. Raises InputError."""
    if name not in PROFILES:
        raise InputError(f"profile {name!r}: there is {', '.join(PROFILES)}")
    return PROFILES[name]
