"""Prints the version of an evcxr_jupyter, which it tells only as a running kernel.

    python kernel_version.py EVCXR_JUPYTER
"""

import subprocess
import sys

from jupyter_client import KernelManager
from jupyter_client.kernelspec import KernelSpec

spec = KernelSpec(argv=[sys.argv[1], "--control_file", "{connection_file}"], display_name="Rust", language="rust")
manager = KernelManager()
manager._kernel_spec = spec
manager.start_kernel(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
client = manager.client()
client.start_channels()
try:
    client.wait_for_ready(timeout=60)
    request = client.kernel_info()
    reply = client.get_shell_msg(timeout=20)
    while reply["parent_header"].get("msg_id") != request:
        reply = client.get_shell_msg(timeout=20)
    print(reply["content"]["implementation_version"])
finally:
    client.stop_channels()
    manager.shutdown_kernel(now=True)
