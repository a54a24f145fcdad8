#!/bin/sh
# Make .venv at the locked versions. `make install` runs this, with PYTHON and TORCH (cpu, cuda or empty) set.
#
# pip installs uv, uv installs the rest. uv does not read pip's settings, so the ones that say where packages are had
# from are handed over: index, certificates, and folders of wheels. The CPU build of torch is not on the package index;
# it is taken where such a folder holds it.
set -eu

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Python 3.11 or newer is needed; this is $("$python" --version 2>&1). Set PYTHON to another." >&2
    exit 1
}
# A .venv whose Python is gone or too old is made anew
.venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || "$python" -m venv --clear .venv

pip_setting() { .venv/bin/python -m pip config get "global.$1" 2>/dev/null || true; }

find_links=$(echo ${PIP_FIND_LINKS:-$(pip_setting find-links)})
index=${UV_DEFAULT_INDEX:-${PIP_INDEX_URL:-$(pip_setting index-url)}}
cert=${SSL_CERT_FILE:-${PIP_CERT:-$(pip_setting cert)}}
if [ -n "$index" ]; then export UV_DEFAULT_INDEX="$index"; fi
if [ -n "$cert" ]; then export SSL_CERT_FILE="$cert"; fi

torch=${TORCH:-}
if [ -z "$torch" ]; then
    torch=cuda
    tag=$(.venv/bin/python -c 'import sys, sysconfig
print("cp{0}{1}-cp{0}{1}-*{2}.whl".format(*sys.version_info[:2], sysconfig.get_platform().split("-")[-1]))')
    version=$(sed -n 's/^torch==\([^ ]*\).*/\1/p' envs/torch-cpu.txt)
    for folder in $find_links; do
        for wheel in "${folder#file://}/torch-$version-"$tag; do
            if [ -e "$wheel" ]; then torch=cpu; fi
        done
    done
fi
if [ -n "$find_links" ]; then
    UV_FIND_LINKS="$(echo "$find_links" | tr ' ' ',')${UV_FIND_LINKS:+,$UV_FIND_LINKS}"
    export UV_FIND_LINKS
fi

echo "Installing into .venv, with torch for $torch"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r envs/uv.txt
uv() { .venv/bin/uv pip install --quiet --python .venv/bin/python "$@"; }
uv --require-hashes -r envs/requirements.txt -r "envs/torch-$torch.txt"
uv --no-deps --require-hashes -r envs/wild.txt
uv --no-deps --no-build-isolation -e .
env -u PYTHONDONTWRITEBYTECODE .venv/bin/python envs/warm_up.py
