"""What one evidence process may use of the machine; beyond it the process ends, and nothing else does."""

import contextlib
import resource

MEMORY_BYTES = 6 * 2**30  # of addresses: a report takes some 0.4 GB of memory, and maps far more than it touches
CPU_SECONDS = 600  # a report takes some 10
FILE_BYTES = 200 * 2**20  # a page has 4 to 6 MB


def limit(memory_bytes: int = MEMORY_BYTES, cpu_seconds: int = CPU_SECONDS, file_bytes: int = FILE_BYTES) -> None:
    """Limit this process and what it starts, for good. A lower limit that is set already stays."""
    limits = (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_CORE, 0),
    )
    for kind, most in limits:
        _, hard = resource.getrlimit(kind)
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with contextlib.suppress(ValueError, OSError):  # macOS knows no limit of addresses
            resource.setrlimit(kind, (allowed, allowed))
