"""Which compiled programs a processor can run."""

import hashlib
import platform
from pathlib import Path


def processor() -> str:
    """Names the instructions that a compiled program may use."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else [platform.processor()]
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), lines[0])
    return hashlib.sha256(f"{platform.machine()} {flags}".encode()).hexdigest()[:12]
