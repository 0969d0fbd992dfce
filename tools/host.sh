#!/bin/sh
# Checks for the two system packages that pip cannot install: venv, and the shared libpython that
# Triton's Python stub links against. Installs them as root on Debian and Ubuntu, else says how.
#   tools/host.sh PYTHON
set -eu
python=$1

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
case $version in
3.10 | 3.11 | 3.12) ;;
*)
    echo "Python $version is not supported: the Triton wheel needs 3.10 to 3.12." \
        "Choose one: make demo PYTHON=python3.11" >&2
    exit 1
    ;;
esac

missing=""
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing="python$version-venv"
"$python" - <<EOF || missing="$missing libpython$version"
import ctypes, pathlib, sys, sysconfig
name = "libpython$version.so.1.0"
if not (pathlib.Path(sysconfig.get_config_var("LIBDIR") or "/nowhere") / name).exists():
    try:
        ctypes.CDLL(name)
    except OSError:
        sys.exit(1)
EOF
[ -z "$missing" ] && exit 0

install="apt-get install --quiet=2 --yes --no-install-recommends $missing"
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing$missing with apt-get" >&2
    # shellcheck disable=SC2086  # a list of words on purpose
    apt-get update --quiet=2 && $install
else
    echo "These packages are missing. Install them, then try again: sudo $install" >&2
    exit 1
fi
