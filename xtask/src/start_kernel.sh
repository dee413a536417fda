# Starts a Rust kernel: sh start_kernel.sh PROGRAM ARGUMENT…
#
# Where cargo and rustc come from rustup, they look for their toolchain at each call, and opening a notebook takes dozens
# of calls. This script looks for it once, from the folder of temporary files, in which evcxr compiles cells. Another cargo
# that comes first on the PATH is left alone.
folder() { dirname "$(command -v "$1")"; }
if command -v cargo >/dev/null && command -v rustup >/dev/null && [ "$(folder cargo)" = "$(folder rustup)" ]; then
    rustc=$(cd "${TMPDIR:-/tmp}" && rustup which rustc 2>/dev/null) && PATH=$(dirname "$rustc"):$PATH && export PATH
fi
exec "$@"
