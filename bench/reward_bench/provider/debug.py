"""Which attention kernels ONNX Runtime launches on a GPU, from what it prints on request."""

import collections
import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

SWITCH = "ORT_ENABLE_ATTENTION_KERNEL_DEBUG_INFO"  # read when a session is made
# newer versions print one name, older ones a flag for each kernel
KERNEL = re.compile(rb"Operator=.*?(?:SdpaKernel=(\w+)|\b(\w+_ATTENTION|MATH)=1)")


@contextlib.contextmanager
def said_of_attention() -> Iterator[collections.Counter[str]]:
    """How often sessions made in the block launched each kernel; counted when the block ends."""
    counted: collections.Counter[str] = collections.Counter()
    os.environ[SWITCH] = "1"
    sys.stdout.flush()
    before = os.dup(1)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 1)
        try:
            yield counted
        finally:
            os.dup2(before, 1)
            os.close(before)
            del os.environ[SWITCH]
            file.seek(0)
            for new, old in KERNEL.findall(file.read()):
                counted[(new or old).decode()] += 1
